"""The loss ledger: every operation is sorted once, and nothing bad hides."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.testing.faults import Account, LossLedger, Place

PARTS = ("handled", "dead", "parked", "delayed", "in_source", "lost", "never_sent", "unexpected")


def test_an_operation_that_took_effect_once_is_handled() -> None:
    ledger = LossLedger()
    ledger.published("a")
    ledger.effect("a")
    assert ledger.sort() == Account(handled=("a",))
    assert ledger.sort().sound


@pytest.mark.parametrize(
    ("place", "account"),
    [
        (Place.DEAD, Account(dead=("a",))),
        (Place.PARKED, Account(parked=("a",))),
        (Place.DELAYED, Account(delayed=("a",))),
        (Place.SOURCE, Account(in_source=("a",))),
    ],
)
def test_an_operation_without_effect_is_where_it_stands(place: Place, account: Account) -> None:
    ledger = LossLedger()
    ledger.published("a")
    ledger.found(place, "a")
    assert ledger.sort() == account
    assert account.sound


def test_a_confirmed_operation_that_is_nowhere_is_lost() -> None:
    ledger = LossLedger()
    ledger.published("a")
    assert ledger.sort() == Account(lost=("a",))
    assert not ledger.sort().sound


def test_what_somebody_deleted_is_not_lost_and_what_came_back_is_not_removed() -> None:
    ledger = LossLedger()
    for operation in "ab":
        ledger.published(operation)
        ledger.removed(operation)
    ledger.effect("b")
    assert ledger.sort() == Account(handled=("b",), removed=("a",))
    assert ledger.sort().sound


def test_an_unconfirmed_operation_that_is_nowhere_was_never_sent() -> None:
    ledger = LossLedger()
    ledger.published("a", confirmed=False)
    assert ledger.sort() == Account(never_sent=("a",))
    assert ledger.sort().sound


def test_an_operation_that_nobody_published_is_unexpected() -> None:
    ledger = LossLedger()
    ledger.found(Place.DEAD, "a")
    assert ledger.sort() == Account(unexpected=("a",))
    assert not ledger.sort().sound


@pytest.mark.parametrize("again", ["effect", "repeat", "found"])
def test_what_is_seen_twice_is_a_duplicate_unless_something_ambiguous_explains_it(
    again: str,
) -> None:
    ledger = LossLedger()
    ledger.published("a")
    ledger.effect("a")
    if again == "found":
        ledger.found(Place.PARKED, "a")
    else:
        getattr(ledger, again)("a")
    assert ledger.sort().duplicated_unexplained == ("a",)
    assert not ledger.sort().sound
    ledger.ambiguous("a", "worker killed")
    assert ledger.sort().duplicated_unexplained == ()
    assert ledger.sort().duplicated_explained == ("a",)
    assert ledger.doubts("a") == ("worker killed",)
    assert ledger.sort().handled == ("a",)
    assert ledger.sort().sound == (again != "effect")


def test_two_copies_in_one_queue_are_a_duplicate() -> None:
    ledger = LossLedger()
    ledger.published("a")
    ledger.found(Place.PARKED, "a", 2)
    assert ledger.sort() == Account(parked=("a",), duplicated_unexplained=("a",))


def test_a_doubt_alone_is_no_duplicate() -> None:
    ledger = LossLedger()
    ledger.published("a")
    ledger.effect("a")
    ledger.ambiguous("a", "worker killed")
    assert ledger.sort() == Account(handled=("a",))
    assert ledger.doubts("b") == ()


def test_an_account_names_what_is_bad_and_counts_the_rest() -> None:
    ledger = LossLedger()
    for operation in "abc":
        ledger.published(operation)
    ledger.effect("a")
    ledger.effect("b")
    assert str(ledger.sort()) == (
        "handled 2, lost 1 (c: 0 effects, 0 repeats, no doubt), unexpected 0, "
        "duplicated unexplained 0, repeated effects 0"
    )


OPERATIONS = st.sampled_from("abcdefgh")
NOTES = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["published", "perhaps", "effect", "repeat", "doubt"]), OPERATIONS
        ),
        st.tuples(st.sampled_from(Place), OPERATIONS),
    )
)


@given(NOTES)
def test_every_operation_is_in_one_part_and_every_surplus_is_reported(
    notes: list[tuple[str, str]],
) -> None:
    ledger = LossLedger()
    seen: Counter[str] = Counter()
    effects: Counter[str] = Counter()
    for what, operation in notes:
        match what:
            case "published":
                ledger.published(operation)
            case "perhaps":
                ledger.published(operation, confirmed=False)
            case "effect":
                ledger.effect(operation)
                effects[operation] += 1
            case "repeat":
                ledger.repeat(operation)
            case "doubt":
                ledger.ambiguous(operation, "told so")
            case _:
                ledger.found(Place(what), operation)
        seen[operation] += what not in {"published", "perhaps", "doubt"}
    account = ledger.sort()
    sorted_once = [operation for part in PARTS for operation in getattr(account, part)]
    confirmed = {operation for what, operation in notes if what == "published"}
    known = confirmed | {operation for what, operation in notes if what == "perhaps"}
    assert Counter(sorted_once) == dict.fromkeys(known | set(+seen), 1)
    assert set(account.lost) == confirmed - set(+seen)
    assert set(account.unexpected) == set(+seen) - known
    doubted = {operation for what, operation in notes if what == "doubt"}
    duplicated = {operation for operation, times in seen.items() if times > 1}
    assert set(account.duplicated_explained) == duplicated & doubted
    assert set(account.duplicated_unexplained) == duplicated - doubted
    assert set(account.repeated_effects) == {name for name, times in effects.items() if times > 1}


def test_bad_news_says_where_an_operation_was_seen_and_what_is_in_doubt() -> None:
    ledger = LossLedger()
    for operation in ("a", "b", "c"):
        ledger.published(operation)
    ledger.effect("a")
    ledger.repeat("a", 2)
    ledger.found(Place.PARKED, "a")
    ledger.effect("b", 2)
    ledger.ambiguous("b", "it was begun and not settled")
    ledger.removed("d")
    ledger.effect("d")
    told = str(ledger.sort())
    assert "unexplained 1 (a: 1 effect, 2 repeats, 1 parked, no doubt)" in told
    assert "repeated effects 1 (b: 2 effects, 0 repeats, it was begun and not settled)" in told
    assert "lost 1 (c: 0 effects, 0 repeats, no doubt)" in told
    assert "unexpected 1 (d: 1 effect, 0 repeats, no doubt, its queue was deleted)" in told
