"""What is collected in the midst of a change never waits for that change.

The garbage collector can close an abandoned generator at any allocation, so also in the thread that
holds the lock at that moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.circuits import half_open_circuit, interrupt

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


def test_a_permit_given_back_in_the_midst_of_a_change_is_taken_back_with_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire()
    probe = breaker.acquire()
    assert not breaker.can_execute()
    interrupt(breaker, probe.release)
    assert breaker.can_execute()


def test_an_ignored_call_does_not_wait_for_the_change_either(breaker: CircuitBreaker) -> None:
    def leave() -> None:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        interrupt(breaker, breaker(leave))
    assert breaker.snapshot().counters.ignored == 1
