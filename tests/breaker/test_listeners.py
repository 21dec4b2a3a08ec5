"""Listeners hear what happened, in order, and can do no harm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire.breaker import (
    CallFailed,
    Cause,
    CircuitBreaker,
    CircuitState,
    Event,
    Reason,
    StateChanged,
)
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    import pytest

    from fusewire.testing import FakeClock


def test_they_hear_each_change_of_state_and_why(breaker: CircuitBreaker, clock: FakeClock) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    half_open_circuit(breaker, clock)
    breaker.acquire().failure()
    clock.advance(10)
    breaker.acquire().success()
    breaker.acquire().success()
    closed, opened, half = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
    over = Reason(Cause.RECOVERY_TIME_OVER)
    assert heard == [
        StateChanged("payments", closed, opened, Reason(Cause.CONSECUTIVE_FAILURES, 2, 2)),
        StateChanged("payments", opened, half, over),
        StateChanged("payments", half, opened, Reason(Cause.PROBE_FAILED)),
        StateChanged("payments", opened, half, over),
        StateChanged("payments", half, closed, Reason(Cause.PROBES_SUCCEEDED, 2, 2)),
    ]
    assert [str(event.reason) for event in heard if isinstance(event, StateChanged)] == [
        "2 failures in a row, threshold 2",
        "the recovery time is over",
        "a probe failed",
        "the recovery time is over",
        "2 probes succeeded",
    ]


def test_a_removed_listener_hears_no_more(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    remove = breaker.add_listener(heard.append)
    remove()
    remove()
    breaker.acquire().failure()
    breaker.acquire().failure()
    assert heard == []


def test_what_a_listener_raises_is_logged_and_changes_nothing(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("broken listener")

    breaker.add_listener(broken)
    breaker.add_listener(heard.append)
    with caplog.at_level(logging.ERROR):
        breaker.acquire().failure()
        breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
    assert len(heard) == 1
    assert "broken listener" in caplog.text
    message = caplog.records[0].getMessage()
    assert message.startswith("a listener of circuit 'payments' failed on StateChanged(name=")


def test_a_listener_may_use_the_breaker_and_order_is_kept(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[tuple[CircuitState, CircuitState]] = []

    def probe_at_once(event: Event) -> None:
        assert isinstance(event, StateChanged)
        if event.new is CircuitState.OPEN:
            clock.advance(10)
            for _ in range(2):
                breaker.acquire().success()

    def note(event: Event) -> None:
        assert isinstance(event, StateChanged)
        heard.append((event.old, event.new))

    breaker.add_listener(probe_at_once)
    breaker.add_listener(note)
    breaker.acquire().failure()
    breaker.acquire().failure()
    assert heard == [
        (CircuitState.CLOSED, CircuitState.OPEN),
        (CircuitState.OPEN, CircuitState.HALF_OPEN),
        (CircuitState.HALF_OPEN, CircuitState.CLOSED),
    ]


def test_a_listener_that_comes_twice_is_removed_once_at_a_time(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    of_calls = breaker.add_listener(heard.append, CallFailed)
    breaker.add_listener(heard.append, StateChanged)
    breaker.acquire().failure()
    of_calls()
    breaker.acquire().failure()
    assert [type(event) for event in heard] == [CallFailed, StateChanged]
