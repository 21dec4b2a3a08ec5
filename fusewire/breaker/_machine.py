"""The rules of a circuit: which calls are admitted, and what an outcome changes.

Nothing here takes a lock, reads a clock or calls a listener: the caller holds the circuit's lock
and passes the time.

Most calls meet a closed circuit with a healthy window, and succeed. Such a healthy call changes
nothing but the number of calls. So it is only noted, in a short list that needs no lock, and
counted when the numbers are next needed. All numbers stay exact: a note holds the generation of its
call, which shows whether it is late.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.breaker import _events as events
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._permit import Permit
from fusewire.breaker._recovery import open_time
from fusewire.breaker._states import REJECTING, Admission, CircuitState, Outcome
from fusewire.breaker._switching import SwitchingMachine
from fusewire.breaker._windows import FAILED, SLOW
from fusewire.errors import NO_ERROR, CallError

if TYPE_CHECKING:
    from fusewire.breaker._permit import Issuer

MAX_HALF_OPEN_WAIT = 1.0
"""Seconds that a rejected call is told to wait at most while all probes are in flight."""

RAMPING = "it admits a growing share of calls after its recovery"


Refusal = tuple[CircuitState, float, str, CallError]
"""What a rejection says: the state, for how many seconds, why, and the last failure's error."""


class Machine(SwitchingMachine):
    """The rules of admission and settlement."""

    __slots__ = ()

    # Admission.

    def _admit(self, issuer: Issuer, now: float, started: float) -> Permit | None:
        """Return a permit for a call, or None. First change the state if it is time to."""
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
                permit = Permit(issuer, self._generation, started, probe=True)
                self._probes.begin(permit, now + self._settings.probe_lease)
                return permit
        elif state not in REJECTING and (self._ramp is None or self._ramp.take(now)):
            permit = Permit(issuer, self._generation, started)
            if self._settings.open_on_hanging and started == now:
                self._in_flight.begin(permit, started)
            return permit
        self._rejected.add()
        return None

    def _refusal(self, now: float) -> Refusal:
        """Return which state rejected a call just now, for how many seconds, and why."""
        wait = self._wait(now) or 0.0
        self._report_rejection(now, self._state, wait)
        why = RAMPING if self._state is CircuitState.CLOSED else self._why
        return self._state, wait, why, self._last_error

    def _report_rejection(self, _now: float, state: CircuitState, wait: float) -> None:
        if self._listeners.wants_call_events:
            self._listeners.put(events.CallRejected(self._name, state, wait))

    def _wait(self, now: float) -> float | None:
        """Return in how many seconds a call may be admitted; ``None`` if it would be now."""
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
                and self._reason_to_open(now) is not None
            ):
                # The next call opens the circuit, and is the first that it rejects.
                state, wait = CircuitState.OPEN, open_time(self._settings, 0)
        return Admission(wait is None, state, wait or 0.0)

    # Settlement.

    def _catch_up(self, now: float) -> None:
        """Catch up before a change: count what was noted, and end what has expired."""
        if self._healthy:
            self._count_healthy(now)
        if self._probes:
            for _ in range(self._probes.expire(now)):
                self._expired += 1
                self._listeners.put(events.LeaseExpired(self._name))

    def _count_healthy(self, now: float) -> None:
        notes = self._healthy
        # Each of these is one step, and other threads may go on noting between them.
        taken = notes[:]
        del notes[: len(taken)]
        # Usually all notes are the same generation, and are counted at once.
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
                    self._count_late(Outcome.SUCCESS)
        if healthy:
            self._succeeded += healthy
            self._consecutive = 0
            self._window.add_healthy(healthy)
            if self._state is CircuitState.CLOSED:
                # If threads have raced, a success may complete the minimum of calls.
                self._open_if_due(now, None)

    def _settle(
        self,
        now: float,
        permit: Permit,
        outcome: Outcome,
        retry_after: float | None,
        error: CallError = NO_ERROR,
    ) -> bool:
        """Settle a permit that is not settled yet. Return True: this is its first settlement."""
        permit.settled = True
        if self._settings.open_on_hanging:
            self._in_flight.finish(permit)
        if permit.probe and not self._probes.finish(permit):
            self._count_late(outcome)
        else:
            self._settle_call(
                now, permit.generation, permit.started, outcome, error, retry_after=retry_after
            )
        return True

    def _settle_call(
        self,
        now: float,
        generation: int,
        started: float,
        outcome: Outcome,
        error: CallError = NO_ERROR,
        *,
        retry_after: float | None = None,
    ) -> None:
        if generation != self._generation:
            self._count_late(outcome)
        elif self._state is not CircuitState.DISABLED:
            if outcome is Outcome.IGNORED:
                self._ignored += 1
                if self._listeners.wants_call_events:
                    self._listeners.put(events.CallIgnored(self._name))
            else:
                failed = outcome is Outcome.FAILURE
                if failed:
                    self._keep(error)
                self._record(now - started, now, retry_after if failed else None, failed=failed)

    def _keep(self, error: CallError) -> None:
        """Keep what is known of the last failure's error: its text apart, for the log only."""
        self._last_message = error.message
        self._last_error = CallError(error.type, error.status) if error.message else error

    def _count_late(self, outcome: Outcome) -> None:
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
        if failed:
            error = self._last_error
            self._listeners.put(events.CallFailed(self._name, timed, error.type, error.status))
        else:
            self._listeners.put(events.CallSucceeded(self._name, timed))
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
