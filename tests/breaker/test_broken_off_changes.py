"""A change that an exception breaks off leaves a circuit that can be used: it starts again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fusewire._locks import inside
from fusewire.breaker import (
    BreakerSettings,
    Cause,
    CircuitBreaker,
    CircuitState,
    Event,
    Reason,
    StateChanged,
)
from tests.support.circuits import BrokenOffError, break_off, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_a_change_that_is_broken_off_starts_the_circuit_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    open_circuit(breaker)
    heard.clear()
    break_off(breaker)
    # Not even a rejection passes it by.
    breaker.acquire().failure()
    reason = Reason(Cause.INTERRUPTED)
    assert heard == [StateChanged("payments", CircuitState.OPEN, CircuitState.CLOSED, reason)]
    assert str(reason) == "an exception or a fork interrupted a change, so it starts again"
    assert breaker.snapshot().consecutive_failures == 1
    assert breaker.snapshot().counters.failed == 3
    breaker.acquire().failure()
    clock.advance(10)
    assert breaker.state is CircuitState.HALF_OPEN, "it starts again only once"


def test_no_healthy_call_passes_by_a_change_that_is_broken_off(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    break_off(breaker)
    breaker.call(lambda: None)
    assert breaker.snapshot().consecutive_failures == 0
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("way", ["force_open", "disable", "metrics_only"])
def test_a_state_that_a_person_set_outlives_a_change_that_is_broken_off(
    breaker: CircuitBreaker, way: str
) -> None:
    getattr(breaker, way)()
    state = breaker.state
    break_off(breaker)
    assert breaker.state is state


def test_a_beginning_that_is_broken_off_is_made_by_the_next_change(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_circuit(breaker)
    break_off(breaker)

    def interrupted(*_: object) -> None:
        raise BrokenOffError

    with monkeypatch.context() as patch:
        patch.setattr(CircuitBreaker, "_enter", interrupted)
        with pytest.raises(BrokenOffError):
            breaker.look()
    assert breaker.state is CircuitState.CLOSED
    assert not inside


def test_a_ctrl_c_in_the_midst_leaves_a_circuit_that_others_can_use(clock: FakeClock) -> None:
    def in_the_midst() -> float:
        raise KeyboardInterrupt

    settings = BreakerSettings(failure_threshold=1, recovery_timeout_jitter=0.5)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=in_the_midst)
    with pytest.raises(KeyboardInterrupt):
        breaker.acquire().failure()
    states: list[CircuitState] = []
    other = threading.Thread(target=lambda: states.append(breaker.state), daemon=True)
    other.start()
    other.join(10)
    assert states == [CircuitState.CLOSED]
