"""What becomes of a message, decided without a broker."""

from __future__ import annotations

import pytest

from fusewire.errors import CircuitOpenError
from fusewire.parking.policy import Dead, Delay, FailurePolicy, Park, rejection_in
from fusewire.parking.record import MAX_TEXT, Record

NOW = 1_000_000


@pytest.fixture
def policy() -> FailurePolicy:
    return FailurePolicy(max_attempts=3, tiers=(1.0, 5.0), now=lambda: NOW)


def fail(policy: FailurePolicy, record: Record, **given: object) -> Dead | Delay | Park:
    options: dict[str, object] = {"waiting_for": None, "blame": (), "in_outage": False, **given}
    verdict = policy.failed(record, options.pop("error", ValueError("no")), **options)  # type: ignore[arg-type]
    assert isinstance(verdict, Dead | Delay | Park)
    return verdict


def test_failed_attempts_wait_longer_each_time_and_end_dead(policy: FailurePolicy) -> None:
    record = Record(operation_id="a")
    first = fail(policy, record)
    assert isinstance(first, Delay)
    second = fail(policy, first.record)
    assert isinstance(second, Delay)
    third = fail(policy, second.record)
    assert (first.tier, second.tier) == (1.0, 5.0)
    assert isinstance(third, Dead)
    assert (third.record.reason, third.record.attempts) == ("exhausted", 3)


def test_probes_of_an_outage_do_not_count_however_many(policy: FailurePolicy) -> None:
    record = Record(operation_id="a")
    for _ in range(50):
        verdict = fail(policy, record, waiting_for=("payments", 30.0), in_outage=True)
        assert isinstance(verdict, Park)
        record = verdict.record
    assert (record.attempts, record.outage_attempts) == (0, 50)
    assert record.times_parked == 50


def test_the_failure_that_opens_the_circuit_counts(policy: FailurePolicy) -> None:
    verdict = fail(policy, Record(operation_id="a"), waiting_for=("payments", 30.0))
    assert isinstance(verdict, Park)
    assert verdict.record.attempts == 1


def test_at_most_once_is_never_tried_again_after_any_failure(policy: FailurePolicy) -> None:
    record = Record(operation_id="a", at_most_once=True)
    for given in ({}, {"waiting_for": ("payments", 1.0)}, {"in_outage": True}):
        verdict = fail(policy, record, **given)
        assert isinstance(verdict, Dead)
        assert verdict.record.reason == "ambiguous"


def test_a_message_goes_round_once_in_an_open_time(policy: FailurePolicy) -> None:
    parked = policy.park(Record(operation_id="a"), "payments", "circuit_open", wait=30).record
    assert policy.may_go_round(parked)
    again = policy.park(parked, "payments", "circuit_open", wait=30).record
    assert not policy.may_go_round(again)
    later = FailurePolicy(3, (1.0,), now=lambda: NOW + 30_000)
    assert later.may_go_round(again)


class UntellableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error",
    [ValueError("bad \udcff"), UntellableError(), ValueError("x" * 100_000)],
    ids=["surrogate", "no text", "long"],
)
def test_the_story_of_any_error_can_be_stored(policy: FailurePolicy, error: Exception) -> None:
    record = fail(policy, Record(operation_id="a"), error=error).record
    for text in (record.exception_message, record.stack):
        text.encode()
        assert len(text) <= MAX_TEXT


def test_a_rejection_is_found_in_causes_contexts_and_groups() -> None:
    rejection = CircuitOpenError("payments", "open", 1.0)
    caused = ValueError("a")
    caused.__cause__ = rejection
    group = ExceptionGroup("g", [KeyError("x"), caused])
    circular = ValueError("c")
    circular.__context__ = circular
    assert rejection_in(rejection) is rejection
    assert rejection_in(caused) is rejection
    assert rejection_in(group) is rejection
    assert rejection_in(circular) is None
