"""What a half-open circuit does."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    Admission,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
)
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@pytest.fixture(autouse=True)
def _half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)


def test_it_admits_so_many_probes_and_no_more(breaker: CircuitBreaker) -> None:
    assert breaker.acquire().probe
    assert breaker.acquire().probe
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert (caught.value.name, caught.value.state) == ("payments", "half_open")
    assert breaker.look() == Admission(
        admitted=False, state=CircuitState.HALF_OPEN, retry_after=1.0
    )


def test_so_many_successes_close_it(breaker: CircuitBreaker) -> None:
    breaker.acquire().success()
    assert breaker.state is CircuitState.HALF_OPEN
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED


def test_a_success_takes_a_place_for_good(breaker: CircuitBreaker) -> None:
    breaker.acquire().success()
    breaker.acquire()
    assert not breaker.can_execute()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()


def test_one_failure_reopens_it_for_the_whole_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire().success()
    clock.advance(1)
    breaker.acquire().failure()
    assert breaker.look() == Admission(admitted=False, state=CircuitState.OPEN, retry_after=10.0)


def test_a_failed_probe_may_bring_a_hint(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure(retry_after=2.5)
    assert breaker.look().retry_after == 2.5


def test_a_released_probe_frees_its_place(breaker: CircuitBreaker) -> None:
    breaker.acquire()
    breaker.acquire().release()
    assert breaker.acquire().probe
    assert breaker.state is CircuitState.HALF_OPEN


def test_a_leaked_probe_frees_its_place_when_its_lease_is_over(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire()
    clock.advance(30)
    breaker.acquire()
    clock.advance(29.5)
    assert breaker.look() == Admission(
        admitted=False, state=CircuitState.HALF_OPEN, retry_after=0.5
    )
    clock.advance(0.5)
    assert breaker.acquire().probe
    assert not breaker.can_execute()


def test_a_probe_that_outlived_its_lease_changes_nothing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    slow, failing = breaker.acquire(), breaker.acquire()
    clock.advance(60)
    slow.success()
    failing.failure()
    assert breaker.state is CircuitState.HALF_OPEN
    breaker.acquire().success()
    assert breaker.state is CircuitState.HALF_OPEN


def test_results_of_calls_made_before_it_opened_change_nothing(
    clock: FakeClock,
) -> None:
    breaker = CircuitBreaker("payments", 2, 10.0, 2, clock=clock)
    early = [breaker.acquire() for _ in range(6)]
    early[0].failure()
    early[1].failure()
    clock.advance(10)
    breaker.acquire().success()
    early[2].failure()
    early[3].success()
    early[4].release()
    assert breaker.state is CircuitState.HALF_OPEN
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED
    early[5].failure()
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


def test_results_of_probes_of_an_earlier_round_change_nothing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    late = breaker.acquire()
    breaker.acquire().failure()
    late.success()
    assert breaker.state is CircuitState.OPEN
    clock.advance(10)
    assert breaker.acquire().probe
    assert breaker.acquire().probe


def test_with_a_probe_in_flight_all_else_works(breaker: CircuitBreaker) -> None:
    breaker.acquire()
    breaker.replace_settings(BreakerSettings(half_open_max_calls=2))
    breaker.automatic()
    assert breaker.snapshot().probes_running == 1
    breaker.reset()
    assert breaker.state is CircuitState.CLOSED


def test_a_decorated_call_from_before_may_end_while_probes_are_in_flight(
    clock: FakeClock,
) -> None:
    breaker = CircuitBreaker("payments", 2, 10.0, 2, clock=clock)

    def others() -> None:
        half_open_circuit(breaker, clock)
        breaker.acquire()

    @breaker
    def work() -> None:
        Context().run(others)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        work()
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.snapshot().counters.late == 1
