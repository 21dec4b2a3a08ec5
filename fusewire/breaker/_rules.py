"""When a closed circuit opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker._events import Cause, Reason

if TYPE_CHECKING:
    from fusewire.breaker._in_flight import InFlightCalls
    from fusewire.breaker._settings import BreakerSettings
    from fusewire.breaker._windows import Window


def why_open(
    settings: BreakerSettings, consecutive: int, window: Window, running: InFlightCalls, now: float
) -> Reason | None:
    """Return why the circuit should open, None if it should not.

    Args:
        settings: the criteria; one that is met is enough.
        consecutive: failures in a row.
        window: the latest calls.
        running: the calls in flight.
        now: the time.
    """
    threshold = settings.failure_threshold
    if threshold is not None and consecutive >= threshold:
        return Reason(Cause.CONSECUTIVE_FAILURES, consecutive, threshold)
    calls = window.calls
    rate = settings.failure_rate_threshold
    if rate is not None and calls >= settings.minimum_calls and window.failed / calls >= rate:
        return Reason(Cause.FAILURE_RATE, window.failed / calls, rate, calls)
    rate = settings.slow_call_rate_threshold
    if rate is None or settings.slow_call_duration is None:
        return None
    hanging = 0
    if settings.open_on_hanging:
        window.drop_old(now)
        hanging = running.hanging(now, settings.slow_call_duration, settings.probe_lease)
        calls = window.calls + hanging
    slow = window.slow + hanging
    if calls >= settings.minimum_calls and slow / calls >= rate:
        cause = Cause.HANGING_CALLS if hanging else Cause.SLOW_CALL_RATE
        return Reason(cause, slow / calls, rate, calls)
    return None
