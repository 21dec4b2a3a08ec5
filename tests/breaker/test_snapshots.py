"""Snapshots: all figures at one moment, through JSON and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    Bucket,
    Cause,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Counters,
    Event,
    Reason,
    Snapshot,
    StateChanged,
    Transition,
)
from fusewire.breaker._transitions import AUTOMATIC
from tests.support.circuits import half_open_circuit, open_circuit, restarted

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

SETTINGS = BreakerSettings(
    failure_threshold=2,
    recovery_timeout=10,
    half_open_max_calls=2,
    window_calls=10,
    slow_call_duration=2,
)


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=SETTINGS, clock=clock)


def test_a_snapshot_has_all_figures(breaker: CircuitBreaker, clock: FakeClock) -> None:
    guarded = breaker(clock.advance)
    guarded(0)
    guarded(3)
    late = breaker.acquire()
    breaker.acquire().release()
    breaker.acquire().failure()
    assert breaker.snapshot().consecutive_failures == 1
    breaker.acquire().failure()
    late.success()
    clock.advance(4)
    once = Transition(CircuitState.CLOSED, CircuitState.OPEN, 1)
    assert breaker.snapshot() == Snapshot(
        name="payments",
        state=CircuitState.OPEN,
        retry_after=6,
        reason=Reason(Cause.CONSECUTIVE_FAILURES, 2, 2),
        consecutive_failures=0,
        reopenings=0,
        calls=4,
        failed=2,
        slow=1,
        probes_running=0,
        probes_succeeded=0,
        counters=Counters(
            succeeded=2,
            failed=2,
            ignored=1,
            slow=1,
            late=1,
            opened=1,
            transitions=(once, *AUTOMATIC[1:]),
            open_seconds=4,
        ),
        window=(Bucket(1, 0, 0), Bucket(1, 0, 1), Bucket(2, 2, 0)),
    )
    assert breaker.snapshot().failure_rate == 0.5
    assert breaker.snapshot().slow_call_rate == 0.25


def test_a_snapshot_of_a_half_open_circuit_has_its_probes(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.acquire()
    snapshot = breaker.snapshot()
    assert (snapshot.probes_running, snapshot.probes_succeeded) == (1, 1)


def test_it_goes_through_json_unchanged(breaker: CircuitBreaker) -> None:
    assert Snapshot.from_json(breaker.snapshot().to_json()) == breaker.snapshot()
    open_circuit(breaker)
    snapshot = breaker.snapshot()
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert "\n" not in snapshot.to_json()


def test_an_open_circuit_stays_open_over_a_restart_for_the_rest_of_its_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(4)
    other = restarted(breaker, clock)
    assert other.look().retry_after == 6
    assert other.snapshot() == breaker.snapshot()
    with pytest.raises(Exception, match="2 failures in a row"):
        other.acquire()
    clock.advance(6)
    assert other.acquire().probe


def test_a_half_open_circuit_keeps_its_successes_over_a_restart(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.acquire()
    other = restarted(breaker, clock)
    assert other.state is CircuitState.HALF_OPEN
    other.acquire().success()
    assert other.state is CircuitState.CLOSED


def test_a_closed_circuit_keeps_window_and_failures_over_a_restart(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire().failure()
    other = restarted(breaker, clock)
    assert other.snapshot() == breaker.snapshot()
    other.acquire().failure()
    assert other.state is CircuitState.OPEN


def test_a_state_set_by_hand_lives_on(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.force_open()
    assert restarted(breaker, clock).state is CircuitState.FORCED_OPEN


def test_restoring_is_reported_and_makes_earlier_results_late(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[Event] = []
    other = CircuitBreaker("payments", settings=SETTINGS, clock=clock)
    other.add_listener(heard.append)
    permit = other.acquire()
    open_circuit(breaker)
    other.restore(breaker.snapshot())
    permit.success()
    closed, opened = CircuitState.CLOSED, CircuitState.OPEN
    assert heard == [StateChanged("payments", closed, opened, Reason(Cause.RESTORED))]
    assert str(Reason(Cause.RESTORED)) == "restored from a snapshot"
    assert other.snapshot().counters.late == 1


def test_the_totals_go_on_from_the_snapshot(breaker: CircuitBreaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    for _ in range(3):
        with pytest.raises(Exception, match="open"):
            breaker.acquire()
    other = restarted(breaker, clock)
    for _ in range(2):
        with pytest.raises(Exception, match="open"):
            other.acquire()
    assert other.snapshot().counters.rejected == 5
    other.restore(breaker.snapshot())
    assert other.snapshot().counters.rejected == 3


def test_a_probe_count_that_is_enough_by_the_new_settings_closes(clock: FakeClock) -> None:
    strict = CircuitBreaker("payments", 1, 10, 3, clock=clock)
    half_open_circuit(strict, clock)
    strict.acquire().success()
    lax = CircuitBreaker("payments", 1, 10, 1, clock=clock)
    lax.restore(strict.snapshot())
    assert lax.state is CircuitState.CLOSED


def test_a_snapshot_of_another_breaker_is_refused(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    with pytest.raises(ValueError, match="'search' cannot be restored to 'payments'"):
        breaker.restore(CircuitBreaker("search", clock=clock).snapshot())


def test_what_is_no_snapshot_is_refused(breaker: CircuitBreaker) -> None:
    good = json.loads(breaker.snapshot().to_json())
    bad = [
        "",
        "[]",
        "{}",
        json.dumps({**good, "format": 2}),
        json.dumps({**good, "state": "ajar"}),
        json.dumps({**good, "more": 1}),
        json.dumps({**good, "reason": {"cause": "weather"}}),
        json.dumps({**good, "window": [1]}),
    ]
    for text in bad:
        with pytest.raises(ValueError, match="not a snapshot of a circuit breaker"):
            Snapshot.from_json(text)


def test_restoring_forgets_probes_in_flight(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1, half_open_max_calls=1, window_seconds=20, ramp_duration=8
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    breaker.restore(breaker.snapshot())
    probe.success()
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.snapshot().counters.late == 1
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED


def test_another_format_is_named(breaker: CircuitBreaker) -> None:
    fields = {**json.loads(breaker.snapshot().to_json()), "format": 2}
    with pytest.raises(ValueError, match="its format must be 1, got 2"):
        Snapshot.from_json(json.dumps(fields))


def test_a_snapshot_without_a_reason_gives_rejections_none(breaker: CircuitBreaker) -> None:
    snapshot = dataclasses.replace(
        breaker.snapshot(), state=CircuitState.OPEN, retry_after=5.0, reason=None
    )
    breaker.restore(snapshot)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.reason == ""
    assert str(caught.value) == "circuit 'payments' is open; retry in 5 s"


@pytest.mark.parametrize("wrong", ["3", None, -1, True, math.nan, math.inf, [1]])
def test_figures_that_cannot_be_right_are_refused(breaker: CircuitBreaker, wrong: Any) -> None:
    open_circuit(breaker)
    good = json.loads(breaker.snapshot().to_json())
    for part, name in (
        (good, "retry_after"),
        (good, "consecutive_failures"),
        (good["counters"], "late"),
        (good["window"][0], "calls"),
        (good["window"][0], "age"),
        (good["reason"], "value"),
    ):
        right, part[name] = part[name], wrong
        with pytest.raises(ValueError, match=f"its {name} must be "):
            Snapshot.from_json(json.dumps(good))
        part[name] = right
    assert Snapshot.from_json(json.dumps(good)).name == "payments"


def test_numbers_of_calls_are_whole(breaker: CircuitBreaker) -> None:
    fields = {**json.loads(breaker.snapshot().to_json()), "calls": 1.5}
    with pytest.raises(ValueError, match=r"its calls must be .*, got 1\.5"):
        Snapshot.from_json(json.dumps(fields))


def test_seconds_may_be_whole(breaker: CircuitBreaker) -> None:
    fields = {**json.loads(breaker.snapshot().to_json()), "retry_after": 0}
    assert Snapshot.from_json(json.dumps(fields)).retry_after == 0
