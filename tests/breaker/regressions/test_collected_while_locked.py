"""Giving a permit back never waits for the lock.

The garbage collector can close an abandoned generator at any allocation, so also in the thread that
holds the lock at that moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.circuits import half_open_circuit, locked

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


def test_a_permit_given_back_under_the_lock_is_taken_back_by_the_next_who_looks(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire()
    probe = breaker.acquire()
    assert not breaker.can_execute()
    with locked(breaker):
        probe.release()
    assert breaker.can_execute()


def test_an_ignored_call_does_not_wait_for_the_lock_either(breaker: CircuitBreaker) -> None:
    def leave() -> None:
        raise GeneratorExit

    guarded = breaker(leave)
    with locked(breaker), pytest.raises(GeneratorExit):
        guarded()
    assert breaker.snapshot().counters.ignored == 1
