"""A result of a call from before the last change changes nothing (opossum 381, circuitbreaker)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


def test_a_late_success_does_not_close_an_open_circuit(breaker: CircuitBreaker) -> None:
    late = breaker.acquire()
    open_circuit(breaker)
    late.success()
    assert breaker.state is CircuitState.OPEN


def test_a_late_success_is_no_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    late = [breaker.acquire(), breaker.acquire()]
    half_open_circuit(breaker, clock)
    breaker.acquire()
    for permit in late:
        permit.success()
    assert breaker.state is CircuitState.HALF_OPEN


def test_a_late_failure_does_not_reopen_a_circuit(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    late = breaker.acquire()
    half_open_circuit(breaker, clock)
    breaker.acquire()
    late.failure()
    assert breaker.state is CircuitState.HALF_OPEN


def test_late_failures_do_not_count_in_a_circuit_that_closed_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    late = [breaker.acquire() for _ in range(3)]
    half_open_circuit(breaker, clock)
    for _ in range(2):
        breaker.acquire().success()
    for permit in late:
        permit.failure()
    assert breaker.state is CircuitState.CLOSED
