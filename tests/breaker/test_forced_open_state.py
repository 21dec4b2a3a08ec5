"""What a circuit does that was forced open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import Admission, CircuitBreaker, CircuitOpenError, CircuitState
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_it_rejects_whatever_time_passes(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.force_open()
    clock.advance(1e6)
    assert breaker.look() == Admission(
        admitted=False, state=CircuitState.FORCED_OPEN, retry_after=10.0
    )
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert (caught.value.state, caught.value.reason) == ("forced_open", "by hand")
    assert breaker.snapshot().counters.rejected == 1


def test_its_rejection_names_no_time_because_nothing_happens_then(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert str(caught.value) == "circuit 'payments' is forced_open (by hand) until set back"
    assert not caught.value.ends_by_itself
    breaker.automatic()
    open_circuit(breaker)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert str(caught.value).endswith("; retry in 10 s")
    assert caught.value.ends_by_itself


async def test_it_rejects_in_every_way(breaker: CircuitBreaker) -> None:
    async def work() -> None:
        raise AssertionError("called")

    breaker.force_open()
    for reject in (breaker.acquire, lambda: breaker.call(len, ()), breaker(lambda: None)):
        with pytest.raises(CircuitOpenError):
            reject()
    for call in (breaker.call_async(work), breaker(work)()):
        with pytest.raises(CircuitOpenError):
            await call
    assert not breaker.can_execute()
    assert breaker.snapshot().counters.rejected == 5


def test_results_of_calls_that_were_in_flight_are_late(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    probes = [breaker.acquire(), breaker.acquire()]
    breaker.force_open()
    for probe in probes:
        probe.success()
    assert breaker.state is CircuitState.FORCED_OPEN
    assert breaker.snapshot().counters.late == 2
