"""What a circuit holds, and how it changes its state.

As in :mod:`fusewire.breaker._machine`, the caller holds the circuit's lock and passes the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.breaker import _events as events
from fusewire.breaker._atomic_counter import AtomicCounter
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._in_flight import InFlightCalls, ProbeLeases
from fusewire.breaker._listeners import Listeners
from fusewire.breaker._log import SECONDS_BETWEEN_LINES, TO_LOG, LogLine, is_reopening
from fusewire.breaker._recovery import RampUp, hinted_time, open_time, with_jitter
from fusewire.breaker._rules import why_open
from fusewire.breaker._states import CircuitState
from fusewire.breaker._transitions import StateTotals
from fusewire.breaker._windows import TimeWindow, make_window
from fusewire.errors import NO_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._permit import Permit
    from fusewire.breaker._settings import BreakerSettings

NOTES = 64
"""Healthy calls that are noted before they are counted. Counting each call is slow, and so is
keeping many notes."""

PERMIT_NOTES = 32
"""The same where the note is a permit, which takes more memory."""


class SwitchingMachine:
    """State, window, probes and totals of one circuit, and how one state follows another."""

    __slots__ = (
        "_answered",
        "_by",
        "_consecutive",
        "_expired",
        "_failed",
        "_free",
        "_generation",
        "_healthy",
        "_ignored",
        "_in_flight",
        "_last_error",
        "_last_message",
        "_late",
        "_listeners",
        "_name",
        "_note",
        "_open_until",
        "_opened",
        "_permit_room",
        "_probes",
        "_ramp",
        "_reason",
        "_refreshed",
        "_reject_until",
        "_rejected",
        "_reopenings",
        "_rng",
        "_room",
        "_room_until",
        "_settings",
        "_slow",
        "_slow_after",
        "_state",
        "_succeeded",
        "_timed",
        "_totals",
        "_unanswered",
        "_why",
        "_window",
    )

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self._name = name
        self._settings = settings
        self._rng = rng
        self._listeners = Listeners(name, clock)
        self._state = CircuitState.CLOSED
        # Every change of state raises it: a result of an earlier generation is late.
        self._generation = 1
        self._consecutive = 0
        self._reopenings = 0
        self._open_until = 0.0
        self._reason: Reason | None = None
        self._why = ""
        self._ramp: RampUp | None = None
        self._probes = ProbeLeases()
        self._in_flight = InFlightCalls()
        now = clock()
        self._window = make_window(settings, now)
        self._totals = StateTotals(now)
        # Healthy calls that are not counted yet: their permits or, without one, their generations.
        self._healthy: list[int | Permit] = []
        self._succeeded = self._failed = self._ignored = self._slow = 0
        self._last_error = NO_ERROR
        self._last_message = ""
        # Who set the state by hand, and why.
        self._by = self._note = ""
        self._late = self._expired = self._opened = 0
        # Fallbacks that gave an answer, and those that did not.
        self._answered = self._unanswered = 0
        self._rejected = AtomicCounter()
        self._refresh()

    def _reason_to_open(self, now: float) -> Reason | None:
        return why_open(self._settings, self._consecutive, self._window, self._in_flight, now)

    def _open_if_due(self, now: float, retry_after: float | None) -> bool:
        reason = self._reason_to_open(now)
        if reason is None:
            return False
        self._open(reason, now, retry_after)
        return True

    def _open(self, reason: Reason, now: float, retry_after: float | None) -> None:
        if self._state is CircuitState.HALF_OPEN:
            self._reopenings += 1
        seconds = hinted_time(self._settings, retry_after)
        if seconds is None:
            seconds = open_time(self._settings, self._reopenings)
            if self._settings.recovery_timeout_jitter:
                seconds = with_jitter(self._settings, seconds, self._rng())
        self._open_until = now + seconds
        self._opened += 1
        self._set_reason(reason)
        self._enter(CircuitState.OPEN, reason, now)

    def _set_reason(self, reason: Reason | None) -> None:
        self._reason = reason
        # Put in words once, and not for every rejection that follows.
        self._why = "" if reason is None else str(reason)

    def _close_if_recovered(self, now: float) -> None:
        succeeded, needed = self._probes.succeeded, self._settings.half_open_max_calls
        if succeeded >= needed:
            reason = Reason(Cause.PROBES_SUCCEEDED, succeeded, needed)
            self._enter(CircuitState.CLOSED, reason, now)
            if self._settings.ramp_duration is not None:
                self._ramp = RampUp(now, self._settings.ramp_duration)
                self._refresh()

    def _enter(
        self, state: CircuitState, reason: Reason, now: float, by: str = "", note: str = ""
    ) -> None:
        self._count_open_time(now)
        if state is not self._state:
            self._report_change(state, reason, now, by, note)
        self._state = state
        self._by, self._note = by, note
        self._generation += 1
        self._consecutive = 0
        self._probes.clear()
        self._in_flight.clear()
        self._ramp = None
        if state is CircuitState.CLOSED:
            self._reopenings = 0
        if state not in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            # The window shows what opened a circuit until it is closed again.
            self._window = make_window(self._settings, now)
        self._refresh()

    def _report_change(
        self, state: CircuitState, reason: Reason, now: float, by: str, note: str
    ) -> None:
        """Count a change of state that is about to be made, and report it to log and listeners."""
        old, error, totals = self._state, self._last_error, self._totals
        seconds, rejected = totals.change(old, state, now, self._rejected.value())
        change = events.StateChanged(
            self._name,
            old,
            state,
            reason,
            error_type=error.type,
            error_status=error.status,
            by=by,
            note=note,
            retry_after=self._open_until - now if state is CircuitState.OPEN else 0.0,
            outage_seconds=seconds,
            rejected=rejected,
        )
        if not is_reopening(old, state) or now >= totals.log_again_at:
            if state is CircuitState.OPEN:
                totals.log_again_at = now + SECONDS_BETWEEN_LINES
            self._listeners.put(LogLine(self._name, change, self._last_message), TO_LOG)
        self._listeners.put(change)

    def _count_open_time(self, now: float) -> float:
        """Return how long calls were not admitted. Before a change, count it in the old state."""
        state, until = self._state, -math.inf
        if state is CircuitState.OPEN:
            until = self._open_until
        elif state is CircuitState.FORCED_OPEN:
            until = math.inf
        return self._totals.count_open_time(now, until)

    def _refresh(self) -> None:
        """Derive again which calls may take a fast path. Every change of state ends with this."""
        self._refreshed = True
        settings = self._settings
        self._slow_after = settings.slow_call_duration or math.inf
        self._timed = (
            settings.slow_call_duration is not None
            or settings.max_wait is not None
            or self._listeners.wants_call_events
            or isinstance(self._window, TimeWindow)
        )
        # Until then an open circuit rejects every call, which needs no lock.
        quiet = self._state is CircuitState.OPEN and self._is_quiet()
        self._reject_until = self._open_until if quiet else -math.inf
        free = self._state is CircuitState.METRICS_ONLY or (
            self._state is CircuitState.CLOSED
            and self._ramp is None
            and not settings.open_on_hanging
        )
        self._free = self._generation if free else 0
        self._refresh_room()

    def _is_quiet(self) -> bool:
        """Return whether calls may bypass the lock: they cause no event, and none waits."""
        return not self._listeners.wants_call_events and not self._listeners.left

    def _refresh_room(self) -> None:
        """Derive again how many healthy calls need only be noted, and until when."""
        window = self._window
        room = 0
        if self._is_quiet():
            room = min(window.room(self._settings.minimum_calls), NOTES)
        self._room = room
        self._permit_room = min(room, PERMIT_NOTES)
        self._room_until = window.until

    def _apply_settings(self, now: float) -> None:
        """Apply settings or numbers that have just been replaced."""
        if self._state is CircuitState.HALF_OPEN:
            self._close_if_recovered(now)
        elif self._state is CircuitState.CLOSED:
            self._open_if_due(now, None)
