"""The arithmetic of a circuit: which calls are admitted, and what an outcome changes.

No lock, no clock, no listener is called here: the caller holds the circuit's lock and brings the
time along.

Most calls find a closed circuit and a window in which all is well, and succeed. Such a healthy
call can change nothing but the number of calls. So it is only noted in a deque, which is safe
without a lock and is kept short, and it is counted when the figures are needed next. Every
figure stays exact: a note carries the generation of its call, so that a late one is told from one
in time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from fusewire.breaker import _events as events
from fusewire.breaker._atomic_counter import AtomicCounter
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._in_flight import InFlightCalls, ProbeLeases
from fusewire.breaker._listeners import Listeners
from fusewire.breaker._permit import Permit
from fusewire.breaker._recovery import RampUp, hinted_time, open_time, with_jitter
from fusewire.breaker._rules import why_open
from fusewire.breaker._states import REJECTING, Admission, CircuitState, Outcome
from fusewire.breaker._windows import FAILED, SLOW, TimeWindow, make_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._permit import Issuer
    from fusewire.breaker._settings import BreakerSettings

MAX_HALF_OPEN_WAIT = 1.0
"""Seconds that a call is told to wait at most while all probes are in flight: most end sooner."""

NOTES = 64
"""Healthy calls noted at most before they are counted: notes that are kept for long cost much, and
so does counting that is done for each call."""

PERMIT_NOTES = 32
"""The same where the note is the call's permit, which is larger."""

RAMPING = "it admits a growing share of calls after its recovery"


Refusal = tuple[CircuitState, float, str]
"""The state that refuses a call, for how many seconds, and why it is in it."""


class Machine:
    """State, window, probes and totals of one circuit, and the rules that change them."""

    __slots__ = (
        "_consecutive",
        "_expired",
        "_failed",
        "_free",
        "_generation",
        "_healthy",
        "_ignored",
        "_in_flight",
        "_late",
        "_listeners",
        "_name",
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
        # Raised by every change of state: a result of an earlier generation is late.
        self._generation = 1
        self._consecutive = 0
        self._reopenings = 0
        self._open_until = 0.0
        self._reason: Reason | None = None
        self._why = ""
        self._ramp: RampUp | None = None
        self._probes = ProbeLeases()
        self._in_flight = InFlightCalls()
        self._window = make_window(settings, clock())
        # Healthy calls that are not counted yet: their permits, or else their generations.
        self._healthy: deque[int | Permit] = deque()
        self._succeeded = self._failed = self._ignored = self._slow = 0
        self._late = self._expired = self._opened = 0
        self._rejected = AtomicCounter()
        self._refresh()

    # Admission.

    def _admit(self, issuer: Issuer, now: float, started: float) -> Permit | None:
        """Let a call come: give its permit, or none. Moves on what the time has decided."""
        if self._state is CircuitState.OPEN and now >= self._open_until:
            self._enter(CircuitState.HALF_OPEN, Reason(Cause.RECOVERY_TIME_OVER), now)
        elif self._state is CircuitState.CLOSED:
            if self._ramp is not None and self._ramp.is_over(now):
                self._ramp = None
                self._refresh()
            if self._settings.open_on_hanging:
                self._open_if_due(now, None)
        state = self._state
        if state is CircuitState.HALF_OPEN:
            if len(self._probes) + self._probes.succeeded < self._settings.half_open_max_calls:
                permit = Permit(issuer, self._generation, started, True)  # noqa: FBT003 - see Permit
                self._probes.begin(permit, now + self._settings.probe_lease)
                return permit
        elif state not in REJECTING and (self._ramp is None or self._ramp.take(now)):
            permit = Permit(issuer, self._generation, started, False)  # noqa: FBT003 - see Permit
            if self._settings.open_on_hanging and started == now:
                self._in_flight.begin(permit, started)
            return permit
        self._rejected.add()
        return None

    def _refusal(self, now: float) -> Refusal:
        """Say which state refused a call just now, for how many seconds, and why."""
        wait = self._wait(now) or 0.0
        self._report_rejection(now, self._state, wait)
        why = RAMPING if self._state is CircuitState.CLOSED else self._why
        return self._state, wait, why

    def _report_rejection(self, _now: float, state: CircuitState, wait: float) -> None:
        if self._listeners.wants_call_events:
            self._listeners.put(events.CallRejected(self._name, state, wait))

    def _wait(self, now: float) -> float | None:
        """Tell in how many seconds a call may be admitted; ``None`` if it would be now."""
        state = self._state
        if state is CircuitState.OPEN:
            return self._open_until - now if now < self._open_until else None
        if state is CircuitState.HALF_OPEN:
            if len(self._probes) + self._probes.succeeded < self._settings.half_open_max_calls:
                return None
            return min(self._probes.next_end() - now, MAX_HALF_OPEN_WAIT)
        if state is CircuitState.FORCED_OPEN:
            return self._settings.recovery_timeout
        ramp = self._ramp
        return None if ramp is None or ramp.admits(now) else ramp.wait(now)

    def _look(self, now: float) -> Admission:
        state, wait = self._state, self._wait(now)
        if wait is None:
            if state is CircuitState.OPEN:
                state = CircuitState.HALF_OPEN
            elif (
                state is CircuitState.CLOSED
                and self._settings.open_on_hanging
                and self._verdict(now) is not None
            ):
                # The next call will open the circuit, and be the first to be rejected.
                state, wait = CircuitState.OPEN, open_time(self._settings, 0)
        return Admission(wait is None, state, wait or 0.0)

    # Settlement.

    def _tidy(self, now: float) -> None:
        """Take up what has piled up; before the lock's holder does anything else."""
        if self._healthy:
            self._count_healthy(now)
        if self._probes:
            for _ in range(self._probes.expire(now)):
                self._expired += 1
                self._listeners.put(events.LeaseExpired(self._name))

    def _count_healthy(self, now: float) -> None:
        notes = self._healthy
        # Not until it is empty: other threads may go on noting.
        taken = [notes.popleft() for _ in range(len(notes))]
        # Mostly all are generations and the same, which is counted at once.
        healthy = 0 if isinstance(taken[0], Permit) else taken.count(self._generation)
        if healthy < len(taken):
            healthy = 0
            for note in taken:
                if isinstance(note, Permit):
                    if note.settled:
                        continue
                    note.settled = True
                    note = note.generation  # noqa: PLW2901 - what is compared
                if note == self._generation:
                    healthy += 1
                else:
                    self._note_late(Outcome.SUCCESS)
        if healthy:
            self._succeeded += healthy
            self._consecutive = 0
            self._window.add_healthy(healthy)
            if self._state is CircuitState.CLOSED:
                # Where threads have raced, a success may bring the calls to their minimum.
                self._open_if_due(now, None)

    def _settle(
        self, now: float, permit: Permit, outcome: Outcome, retry_after: float | None
    ) -> bool:
        """Settle a permit that is not settled yet; tell that this is its first settlement."""
        permit.settled = True
        if self._settings.open_on_hanging:
            self._in_flight.finish(permit)
        if permit.probe and not self._probes.finish(permit):
            self._note_late(outcome)
        else:
            self._settle_call(now, permit.generation, permit.started, outcome, retry_after)
        return True

    def _settle_call(
        self,
        now: float,
        generation: int,
        started: float,
        outcome: Outcome,
        retry_after: float | None = None,
    ) -> None:
        if generation != self._generation:
            self._note_late(outcome)
        elif self._state is not CircuitState.DISABLED:
            if outcome is Outcome.IGNORED:
                self._ignored += 1
                if self._listeners.wants_call_events:
                    self._listeners.put(events.CallIgnored(self._name))
            else:
                failed = outcome is Outcome.FAILURE
                self._record(now - started, now, retry_after if failed else None, failed=failed)

    def _note_late(self, outcome: Outcome) -> None:
        self._late += 1
        if self._listeners.wants_call_events:
            self._listeners.put(events.CallLate(self._name, outcome))

    def _record(
        self, duration: float, now: float, retry_after: float | None, *, failed: bool
    ) -> None:
        slow = duration > self._slow_after
        if failed:
            self._failed += 1
            self._consecutive += 1
        else:
            self._succeeded += 1
            self._consecutive = 0
        self._slow += slow
        if self._listeners.wants_call_events:
            self._report_call(duration, failed=failed, slow=slow)
        if self._state is CircuitState.HALF_OPEN:
            self._end_probe(duration, now, retry_after, failed=failed, slow=slow)
            return
        self._window.record((FAILED if failed else 0) | (SLOW if slow else 0), now)
        if self._state is CircuitState.METRICS_ONLY or not self._open_if_due(now, retry_after):
            self._refresh_room()

    def _report_call(self, duration: float, *, failed: bool, slow: bool) -> None:
        timed = None if duration == -math.inf else duration
        kind = events.CallFailed if failed else events.CallSucceeded
        self._listeners.put(kind(self._name, timed))
        if slow:
            self._listeners.put(events.CallSlow(self._name, duration))

    def _end_probe(
        self, duration: float, now: float, retry_after: float | None, *, failed: bool, slow: bool
    ) -> None:
        if failed:
            self._open(Reason(Cause.PROBE_FAILED), now, retry_after)
        elif slow and self._settings.slow_call_rate_threshold is not None:
            self._open(Reason(Cause.PROBE_SLOW, duration, self._slow_after), now, None)
        else:
            self._probes.succeeded += 1
            self._close_if_recovered(now)

    # Changes of state.

    def _verdict(self, now: float) -> Reason | None:
        return why_open(self._settings, self._consecutive, self._window, self._in_flight, now)

    def _open_if_due(self, now: float, retry_after: float | None) -> bool:
        reason = self._verdict(now)
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
        self._note_reason(reason)
        self._enter(CircuitState.OPEN, reason, now)

    def _note_reason(self, reason: Reason | None) -> None:
        self._reason = reason
        # In words once, and not at each of the rejections that follow.
        self._why = "" if reason is None else str(reason)

    def _close_if_recovered(self, now: float) -> None:
        succeeded, needed = self._probes.succeeded, self._settings.half_open_max_calls
        if succeeded >= needed:
            reason = Reason(Cause.PROBES_SUCCEEDED, succeeded, needed)
            self._enter(CircuitState.CLOSED, reason, now)
            if self._settings.ramp_duration is not None:
                self._ramp = RampUp(now, self._settings.ramp_duration)
                self._refresh()

    def _enter(self, state: CircuitState, reason: Reason, now: float) -> None:
        if state is not self._state:
            self._listeners.put(events.StateChanged(self._name, self._state, state, reason))
        self._state = state
        self._generation += 1
        self._consecutive = 0
        self._probes.clear()
        self._in_flight.clear()
        self._ramp = None
        if state is CircuitState.CLOSED:
            self._reopenings = 0
        if state not in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            # What opened a circuit can be read until it is closed again.
            self._window = make_window(self._settings, now)
        self._refresh()

    def _refresh(self) -> None:
        """Work out again which calls pass with the least to do. Ends each change of state."""
        self._refreshed = True
        settings = self._settings
        self._slow_after = settings.slow_call_duration or math.inf
        self._timed = (
            settings.slow_call_duration is not None
            or settings.max_wait is not None
            or self._listeners.wants_call_events
            or isinstance(self._window, TimeWindow)
        )
        # Until then an open circuit rejects whatever comes, and needs no lock to say so.
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
        """Tell whether calls may pass by the lock: no event is to be made, and none waits."""
        return not self._listeners.wants_call_events and not self._listeners.left

    def _refresh_room(self) -> None:
        """Work out again how many healthy calls, and until when, need only be noted."""
        window = self._window
        room = 0
        if self._is_quiet():
            room = min(window.room(self._settings.minimum_calls), NOTES)
        self._room = room
        self._permit_room = min(room, PERMIT_NOTES)
        self._room_until = window.until

    def _apply_rules(self, now: float) -> None:
        """Apply rules or figures that have just been replaced."""
        if self._state is CircuitState.HALF_OPEN:
            self._close_if_recovered(now)
        elif self._state is CircuitState.CLOSED:
            self._open_if_due(now, None)
