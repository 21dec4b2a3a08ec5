"""Patterns find what a plain search finds: the exact name, else the longest that matches."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from fusewire.breaker._patterns import Patterns

TEXT = st.text("ab/.*?[]!", max_size=6)


def plainly(patterns: list[str], name: str) -> str | None:
    if name in patterns:
        return name
    fitting = [one for one in patterns if any(c in one for c in "*?[") and fnmatchcase(name, one)]
    return max(fitting, key=len, default=None)


@given(patterns=st.lists(TEXT, unique=True, max_size=8), names=st.lists(TEXT, max_size=8))
def test_patterns_find_what_a_plain_search_finds(patterns: list[str], names: list[str]) -> None:
    compiled = Patterns(patterns)
    for name in names:
        assert compiled.find(name) == plainly(patterns, name)


def test_of_a_beginning_and_another_pattern_the_longer_one_is_found() -> None:
    assert Patterns(["p?*", "pay*"]).find("pay") == "pay*"
    assert Patterns(["p?y*", "p*"]).find("pay") == "p?y*"


def test_a_star_stands_for_nothing_too() -> None:
    assert Patterns(["pay*"]).find("pay") == "pay*"
