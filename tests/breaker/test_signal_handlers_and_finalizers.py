"""A signal handler or a finalizer makes guarded calls without a deadlock."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from typing import TYPE_CHECKING, Any

from fusewire._locks import inside
from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.testing import FakeClock

RAMPING = BreakerSettings(
    failure_threshold=1, recovery_timeout=10.0, half_open_max_calls=1, ramp_duration=8.0
)


def test_a_signal_handler_may_use_the_circuit(clock: FakeClock) -> None:
    seen: list[Any] = []

    def in_the_midst() -> float:
        signal.raise_signal(signal.SIGUSR1)
        return 0.5

    settings = BreakerSettings(failure_threshold=1, recovery_timeout_jitter=0.5)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=in_the_midst)

    def handle(_signal: int, _frame: object) -> None:
        seen.extend((breaker.state, breaker.snapshot().state))
        breaker.acquire().failure()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        breaker.acquire().failure()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [CircuitState.CLOSED, CircuitState.CLOSED]
    assert breaker.state is CircuitState.OPEN
    assert breaker.snapshot().counters.late == 1


class Session:
    """Closes itself through the circuit when it is collected, as a session of a client may."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.itself = self

    def __del__(self) -> None:
        with contextlib.suppress(CircuitOpenError):
            self.breaker.call(lambda: None)


def test_a_finalizer_may_make_a_guarded_call(clock: FakeClock) -> None:
    def in_the_midst() -> float:
        Session(breaker)
        gc.collect()
        return 0.5

    settings = BreakerSettings(failure_threshold=1, recovery_timeout_jitter=0.5)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=in_the_midst)
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
    counters = breaker.snapshot().counters
    assert counters.failed == 1
    assert counters.succeeded + counters.late == 1


def test_two_threads_in_finalizers_do_not_wait_for_each_others_circuit() -> None:
    both_inside = threading.Barrier(2)
    settings = BreakerSettings(failure_threshold=1, recovery_timeout_jitter=0.5)

    def make(name: str, other: Callable[[], CircuitBreaker]) -> CircuitBreaker:
        def in_the_midst() -> float:
            if threading.current_thread() is not threading.main_thread():
                both_inside.wait(10)
                with contextlib.suppress(CircuitOpenError):
                    other().acquire().failure()
                other().snapshot()
                both_inside.wait(10)
            return 0.5

        return CircuitBreaker(name, settings=settings, rng=in_the_midst)

    first = make("first", lambda: second)
    second = make("second", lambda: first)
    threads = [
        threading.Thread(target=lambda breaker=breaker: breaker.acquire().failure(), daemon=True)
        for breaker in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not inside
    for breaker in (first, second):
        assert breaker.state is CircuitState.OPEN
        assert breaker.snapshot().counters.failed + breaker.snapshot().counters.late == 2
