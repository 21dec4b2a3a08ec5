"""What becomes of a message, decided without a broker."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fusewire._causes import rejection_in
from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.parking import Retry, RetryPolicy
from fusewire.parking._decisions import Dead, Delay, FailurePolicy, Park, Verdict
from fusewire.parking._error_summary import MAX_TEXT
from fusewire.parking._history import History

NOW = 1_000_000


class Clock:
    """Milliseconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def policy(clock: Clock) -> FailurePolicy:
    return FailurePolicy(
        RetryPolicy(max_attempts=3, delays=(1.0, 5.0)), now=clock, chance=lambda: 0.9
    )


def fail(policy: FailurePolicy, history: History, **given: object) -> Dead | Delay | Park:
    options: dict[str, object] = {
        "waiting_for": None,
        "failed_breakers": (),
        "in_outage": False,
        **given,
    }
    verdict = policy.failed(history, options.pop("error", ValueError("no")), **options)  # type: ignore[arg-type]
    assert isinstance(verdict, Dead | Delay | Park)
    return verdict


def test_failed_attempts_wait_longer_each_time_and_end_dead(policy: FailurePolicy) -> None:
    history = History(operation_id="a")
    first = fail(policy, history)
    assert isinstance(first, Delay)
    second = fail(policy, first.history)
    assert isinstance(second, Delay)
    third = fail(policy, second.history)
    assert (first.delay, second.delay) == (1.0, 5.0)
    assert isinstance(third, Dead)
    assert (third.history.reason, third.history.attempts) == ("exhausted", 3)


def test_what_failed_together_does_not_come_back_together() -> None:
    chance = random.Random(7).random
    policy = FailurePolicy(
        RetryPolicy(max_attempts=100, delays=(1.0, 5.0, 30.0)), now=lambda: NOW, chance=chance
    )
    waits = {attempts: Counter[float]() for attempts in (0, 1, 2, 50)}
    for attempts, seen in waits.items():
        for _ in range(400):
            verdict = fail(policy, History(operation_id="a", attempts=attempts))
            assert isinstance(verdict, Delay)
            seen[verdict.delay] += 1
    assert waits[0].keys() == {1.0}  # there is none below
    for attempts, tiers in ((1, {1.0, 5.0}), (2, {5.0, 30.0}), (50, {5.0, 30.0})):
        assert waits[attempts].keys() == tiers
        assert min(waits[attempts].values()) > 100


def test_probes_of_an_outage_do_not_count_however_many(policy: FailurePolicy) -> None:
    history = History(operation_id="a")
    for _ in range(50):
        verdict = fail(policy, history, waiting_for=("payments", 30.0), in_outage=True)
        assert isinstance(verdict, Park)
        history = verdict.history
    assert (history.attempts, history.outage_attempts) == (0, 50)
    assert history.times_parked == 50


def test_the_failure_that_opens_the_circuit_counts(policy: FailurePolicy) -> None:
    verdict = fail(policy, History(operation_id="a"), waiting_for=("payments", 30.0))
    assert isinstance(verdict, Park)
    assert verdict.history.attempts == 1


def test_at_most_once_is_never_tried_again_after_any_failure(policy: FailurePolicy) -> None:
    history = History(operation_id="a", at_most_once=True)
    for given in ({}, {"waiting_for": ("payments", 1.0)}, {"in_outage": True}):
        verdict = fail(policy, history, **given)
        assert isinstance(verdict, Dead)
        assert verdict.history.reason == "ambiguous"


def test_a_message_goes_round_once_in_an_open_time(policy: FailurePolicy) -> None:
    parked = policy.park(History(operation_id="a"), "payments", "circuit_open", wait=30).history
    assert policy.may_go_round(parked)
    again = policy.park(parked, "payments", "circuit_open", wait=30).history
    assert not policy.may_go_round(again)
    later = FailurePolicy(RetryPolicy(max_attempts=3, delays=(1.0,)), now=lambda: NOW + 30_000)
    assert later.may_go_round(again)


class UntellableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad \udcff"),
        UntellableError(),
        ValueError("x" * 100_000),
        ValueError("世" * 100_000),
        type("世" * 1000, (Exception,), {})(),
    ],
    ids=["surrogate", "no text", "long", "long in bytes", "long name"],
)
def test_the_story_of_any_error_can_be_stored(policy: FailurePolicy, error: Exception) -> None:
    history = fail(policy, History(operation_id="a"), error=error).history
    assert len(history.exception.encode()) <= 255
    for text in (history.exception_message, history.stack):
        assert len(text.encode()) <= MAX_TEXT


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


# -- age -------------------------------------------------------------------------------------------


def test_a_message_past_its_age_is_not_tried_again(clock: Clock) -> None:
    policy = FailurePolicy(RetryPolicy(max_attempts=100, delays=(1.0,), max_age=60), now=clock)
    history = fail(policy, History(operation_id="a")).history
    clock.ms += 60_000
    assert not policy.expired(history)
    assert isinstance(fail(policy, history), Delay)
    clock.ms += 1
    assert policy.expired(history)
    verdict = fail(policy, history)
    assert isinstance(verdict, Dead)
    assert (verdict.history.reason, verdict.history.attempts) == ("expired", 2)


def test_age_counts_from_the_first_of_parking_failure_and_postponement(clock: Clock) -> None:
    policy = FailurePolicy(RetryPolicy(max_attempts=100, delays=(1.0,), max_age=60), now=clock)
    parked = policy.park(History(operation_id="a"), "payments", "circuit_open", wait=1).history
    postponed = _postponed(policy, History(operation_id="b"), Retry(after=1))
    clock.ms += 59_000
    records = [
        fail(policy, parked).history,
        fail(policy, postponed.history).history,
        policy.park(parked, "payments", "circuit_open", wait=1).history,
    ]
    clock.ms += 1001
    assert all(policy.expired(history) for history in records)


def test_a_message_that_was_never_moved_has_no_age_and_none_is_old_without_a_limit(
    policy: FailurePolicy, clock: Clock
) -> None:
    history = History(operation_id="a", first_failed_at_ms=1)
    assert not policy.expired(history)
    limited = FailurePolicy(RetryPolicy(max_attempts=3, delays=(1.0,), max_age=0.001), now=clock)
    assert not limited.expired(History(operation_id="a"))


# -- a time that the handler names -----------------------------------------------------------------


def _postponed(policy: FailurePolicy, history: History, asked: Retry) -> Delay:
    verdict: Verdict = policy.postpone(history, asked)
    assert isinstance(verdict, Delay)
    return verdict


@pytest.mark.parametrize("seconds", [0.4, 1, 3.5, 7, 28.2, 59.9, 420, 3601.5, 86_400])
def test_a_named_time_is_the_delay_that_the_broker_is_asked_for(
    clock: Clock, policy: FailurePolicy, seconds: float
) -> None:
    verdict = _postponed(policy, History(operation_id="a"), Retry(after=seconds))
    assert verdict.delay == seconds
    assert (verdict.history.attempts, verdict.history.times_postponed) == (0, 1)
    assert verdict.history.reason == "postponed"
    clock.ms += round(seconds * 1000)
    assert policy.not_due(verdict.history) is None


def test_what_a_broker_gives_back_early_waits_for_the_rest(
    clock: Clock, policy: FailurePolicy
) -> None:
    history = _postponed(policy, History(operation_id="a"), Retry(after=7)).history
    clock.ms += 5020
    rest = policy.not_due(history)
    assert rest == Delay(history, 1.98)


def test_a_named_time_may_be_a_datetime_in_any_zone(policy: FailurePolicy) -> None:
    for hours in (-8, 0, 13):
        at = datetime.fromtimestamp(NOW / 1000 + 3, timezone(timedelta(hours=hours)))
        history = _postponed(policy, History(operation_id="a"), Retry(at=at)).history
        assert history.postponed_until_ms == NOW + 3000


def test_asking_for_another_time_is_no_attempt_however_often(policy: FailurePolicy) -> None:
    history = History(operation_id="a", attempts=2)
    for _ in range(50):
        history = _postponed(policy, history, Retry("rate limited", after=5)).history
    assert (history.attempts, history.times_postponed) == (2, 50)
    assert history.first_failed_at_ms is None
    assert "rate limited" in history.exception_message


def test_what_would_be_too_late_at_the_named_time_is_expired_at_once(clock: Clock) -> None:
    policy = FailurePolicy(RetryPolicy(max_attempts=3, delays=(1.0,), max_age=60), now=clock)
    deadline = History(operation_id="a", not_after_ms=NOW + 10_000)
    for history, seconds in ((deadline, 11), (History(operation_id="b"), 61)):
        verdict = policy.postpone(history, Retry(after=seconds))
        assert isinstance(verdict, Dead)
        assert verdict.history.reason == "expired"
    _postponed(policy, deadline, Retry(after=10))


def test_endless_postponing_ends_by_age(clock: Clock) -> None:
    policy = FailurePolicy(RetryPolicy(max_attempts=3, delays=(1.0,), max_age=60), now=clock)
    verdict: Verdict = policy.postpone(History(operation_id="a"), Retry(after=7))
    while isinstance(verdict, Delay):
        clock.ms += 7000
        verdict = policy.postpone(verdict.history, Retry(after=7))
    assert isinstance(verdict, Dead)
    assert (verdict.history.reason, verdict.history.times_postponed) == ("expired", 9)


@pytest.mark.parametrize("asked", [Retry(after=0), Retry(at=datetime(1970, 1, 1, tzinfo=UTC))])
def test_a_message_that_may_come_back_at_once_comes_back_after_the_shortest_delay(
    policy: FailurePolicy, asked: Retry
) -> None:
    verdict = policy.postpone(History(operation_id="a"), asked)
    assert isinstance(verdict, Delay)
    assert verdict.delay == 1.0


def test_at_most_once_is_not_postponed(policy: FailurePolicy) -> None:
    verdict = policy.postpone(History(operation_id="a", at_most_once=True), Retry(after=1))
    assert isinstance(verdict, Dead)
    assert verdict.history.reason == "ambiguous"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "one of"),
        ({"after": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "one of"),
        ({"after": -1}, r"must be seconds .*, got -1"),
        ({"after": float("nan")}, r"must be seconds .*, got nan"),
        ({"after": float("inf")}, r"must be seconds .*, got inf"),
        ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 - the case in question
    ],
)
def test_a_time_that_cannot_be_is_reported(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Retry(**given)
