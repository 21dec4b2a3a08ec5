"""Which of a registry's breakers is let go first."""

from __future__ import annotations

from fusewire.breaker._eviction import Candidates


def candidates(*names: str) -> Candidates:
    made = Candidates()
    for name in names:
        made.add(name)
    return made


def test_a_name_that_is_asked_for_again_comes_last() -> None:
    names = candidates("a", "b", "a")
    assert list(names.first()) == ["b", "a"]


def test_what_is_asked_for_comes_before_what_was_seen_to_be_worth_something() -> None:
    names = candidates("a", "b")
    names.choose(names.first(), {"a": 0, "b": 1})
    names.discard("a")
    names.add("c")
    assert list(names.first()) == ["c", "b"]


def test_what_is_asked_for_again_is_worth_nothing_until_it_is_looked_at() -> None:
    names = candidates("a", "b", "c")
    names.choose(names.first(), {"a": 0, "b": 2, "c": 1})
    names.add("b")
    assert list(names.first()) == ["a", "b", "c"]


def test_of_equal_ones_that_goes_which_was_asked_for_the_longest_time_ago() -> None:
    names = candidates("a", "b")
    assert names.choose(names.first(), {"a": 1, "b": 1}) == "a"


def test_one_that_is_gone_already_is_worth_nothing() -> None:
    names = candidates("a", "b")
    assert names.choose(names.first(), {"a": 1}) == "b"


def test_those_that_are_gone_already_keep_their_place() -> None:
    names = candidates("a", "b", "c")
    assert names.choose(names.first(), {}) == "a"
    assert list(names.first()) == ["a", "b", "c"]
