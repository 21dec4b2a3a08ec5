"""A signal handler or an exception may come at any line of a circuit's change."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fusewire._locks import inside
from fusewire.breaker import (
    BreakerSettings,
    CallEvent,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
)
from tests.support.circuits import BrokenOffError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from fusewire.testing import FakeClock

FULL = BreakerSettings(
    failure_threshold=3,
    recovery_timeout=1.0,
    half_open_max_calls=2,
    window_calls=6,
    minimum_calls=2,
    failure_rate_threshold=0.5,
    slow_call_rate_threshold=0.5,
    slow_call_duration=2.0,
    open_on_hanging=True,
    probe_lease=4.0,
    recovery_timeout_jitter=0.5,
    ramp_duration=4.0,
)
BY_TIME = BreakerSettings(
    failure_threshold=None, window_seconds=20, minimum_calls=2, failure_rate_threshold=0.5
)


def everything(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Take the circuit through all of its states, and every way to count."""
    for seconds, failures in ((0.0, 2), (1.5, 0), (2.5, 2), (1.0, 1), (1.0, 0), (8.0, 3)):
        for number in range(4):
            with contextlib.suppress(CircuitOpenError):
                permit = breaker.acquire()
                clock.advance(seconds / 4)
                (permit.failure if number < failures else permit.success)()
    breaker.hold_open(5)
    breaker.reset()
    breaker.acquire(timed=False).release()
    breaker.snapshot()
    breaker.force_open()
    breaker.reset()
    with contextlib.suppress(CircuitOpenError):
        breaker.call(clock.advance, 0.25)


TIMES = 20


def at_each_line(act: Callable[[int], None], work: Callable[[], object]) -> int:
    """Do `work` and call ``act(number)`` at each line of its changes; return how many there were.

    A signal handler can run between any two lines, and so can what another thread does.
    """
    lines = 0
    times: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        code = frame.f_code
        if (
            event == "line"
            and threading.get_ident() in inside
            and "/fusewire/breaker/" in code.co_filename
            and not any(name in code.co_name for name in ("_change_under_lock", "_break_off"))
        ):
            line = (code.co_name, frame.f_lineno)
            # What is done for it has lines, too: to interrupt them too would never end.
            if times[line] < TIMES:
                times[line] += 1
                lines += 1
                act(lines)
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(tracing)
    return lines


@pytest.mark.parametrize("settings", [FULL, BY_TIME])
def test_it_may_come_at_every_line_of_a_change(clock: FakeClock, settings: BreakerSettings) -> None:
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.add_listener(lambda _event: None, CallEvent)
    alone = CircuitBreaker("payments", settings=settings, clock=clock)
    rejected = 0
    admitted = 0

    def use(_line: int) -> None:
        nonlocal admitted, rejected
        snapshot = breaker.snapshot()
        assert snapshot.calls >= max(snapshot.failed, snapshot.slow) >= 0
        assert snapshot.state is breaker.state
        try:
            breaker.acquire().release()
            admitted += 1
        except CircuitOpenError:
            rejected += 1

    lines = at_each_line(use, lambda: everything(breaker, clock))
    assert lines > 500
    assert admitted + rejected == lines
    assert admitted > 100
    assert rejected > 100
    assert breaker.state is CircuitState.CLOSED
    counters = breaker.snapshot().counters
    everything(alone, clock)
    # Every one of the calls is counted, and none of the circuit's own is lost.
    ours = alone.snapshot().counters
    assert sum(
        (counters.ignored, counters.late, counters.succeeded, counters.failed, counters.rejected)
    ) == lines + sum((ours.ignored, ours.late, ours.succeeded, ours.failed, ours.rejected))


def test_it_may_come_while_figures_are_read(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", settings=FULL, clock=clock)
    breaker.acquire().failure()
    alone = breaker.figures()
    seen = set()
    lines = at_each_line(lambda _: seen.add(breaker.figures()), breaker.figures)
    assert lines > 10
    assert seen == {alone}


@pytest.mark.parametrize("settings", [FULL, BY_TIME])
def test_every_line_of_a_change_may_be_the_last(
    clock: FakeClock, settings: BreakerSettings
) -> None:
    def leave_at(last: int) -> Callable[[int], None]:
        def leave(line: int) -> None:
            if line == last:
                raise BrokenOffError

        return leave

    last = 0
    broken = True
    while broken:
        last += 7
        breaker = CircuitBreaker("payments", settings=settings, clock=clock)

        def work(breaker: CircuitBreaker = breaker) -> None:
            everything(breaker, clock)
            breaker.restore(breaker.snapshot())
            breaker.replace_settings(FULL)

        try:
            at_each_line(leave_at(last), work)
            broken = False
        except BrokenOffError:
            assert not inside
            assert breaker.state in (CircuitState.CLOSED, CircuitState.FORCED_OPEN)
            breaker.reset()
            everything(breaker, clock)
            snapshot = breaker.snapshot()
            assert snapshot.calls >= max(snapshot.failed, snapshot.slow) >= 0
            assert snapshot.state is CircuitState.CLOSED
    assert last > 500
