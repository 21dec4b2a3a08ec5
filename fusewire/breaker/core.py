"""The state machine of a circuit: who is admitted, and what an outcome changes.

It does no I/O and starts no thread. Time comes from an injected monotonic clock. The lock is held
for state arithmetic only, never across a protected call, a listener or a log line.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from typing import TYPE_CHECKING

from fusewire.breaker.events import Cause, Event, Reason, StateChanged
from fusewire.breaker.listeners import Listeners
from fusewire.breaker.permit import Permit
from fusewire.breaker.states import CircuitState, Look, Outcome
from fusewire.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker.settings import BreakerSettings

CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Ways in which a caller leaves a call: they never count, whatever is expected."""

MAX_HALF_OPEN_WAIT = 1.0
"""Seconds that a call is told to wait at most while all probes are in flight: most end sooner."""


class Circuit:
    """One circuit: state, permits and their settlement. Safe to share by threads and tasks."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_consecutive",
        "_generation",
        "_given_back",
        "_listeners",
        "_lock",
        "_name",
        "_open_until",
        "_probes",
        "_reason",
        "_settings",
        "_state",
        "_succeeded_probes",
    )

    def __init__(self, name: str, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners = Listeners()
        self._given_back: deque[Permit] = deque()
        self._state = CircuitState.CLOSED
        self._generation = 1
        self._consecutive = 0
        self._open_until = 0.0
        self._reason: Reason | None = None
        self._probes: dict[Permit, float] = {}
        self._succeeded_probes = 0

    @property
    def name(self) -> str:
        """The identity of the dependency that the circuit protects."""
        return self._name

    @property
    def settings(self) -> BreakerSettings:
        """How the circuit behaves."""
        return self._settings

    @property
    def state(self) -> CircuitState:
        """The state now; an open circuit whose recovery time is over is half open."""
        return self.look().state

    def acquire(self) -> Permit:
        """Get leave to make one call.

        Raises:
            CircuitOpenError: the circuit does not admit the call.
        """
        now = self._clock()
        with self._lock:
            self._take_back(now)
            if self._state is CircuitState.OPEN and now >= self._open_until:
                over = Reason(Cause.RECOVERY_TIME_OVER, 0.0, self._settings.recovery_timeout)
                self._enter(CircuitState.HALF_OPEN, over)
            look = self._look(now)
            permit = self._issue(now) if look.admitted else None
            reason = self._reason
        self._listeners.deliver()
        if permit is None:
            raise CircuitOpenError(
                self._name, look.state, look.retry_after, "" if reason is None else str(reason)
            )
        return permit

    def look(self) -> Look:
        """See what would become of a call made now. Takes no permit and changes nothing."""
        now = self._clock()
        with self._lock:
            self._take_back(now)
            return self._look(now)

    def can_execute(self) -> bool:
        """Tell whether a call made now would be admitted."""
        return self.look().admitted

    def settle(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Record the outcome of the call that `permit` was given for; only its first one counts.

        The permit's own methods say the same in fewer words.
        """
        now = self._clock()
        if outcome is Outcome.IGNORED:
            # A generator that is collected gives its permit back, and collection can strike while
            # this very thread holds the lock. So giving back never waits for it.
            self._given_back.append(permit)
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._take_back(now)
            finally:
                self._lock.release()
        else:
            with self._lock:
                self._take_back(now)
                self._settle(permit, outcome, now, retry_after)
        self._listeners.deliver()

    def judge(self, error: BaseException) -> Outcome:
        """Say what a call that ended with `error` says about the dependency."""
        if isinstance(error, (*CANCELLATIONS, CircuitOpenError)):
            return Outcome.IGNORED
        if isinstance(error, self._settings.expected_exceptions):
            return Outcome.FAILURE
        return Outcome.IGNORED

    def add_listener(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell `listener` of every event; returns a function that ends it.

        Listeners are called in order after the circuit's lock is released, on the thread that
        caused the event or on one that is delivering already. What they raise is logged and changes
        nothing.
        """
        with self._lock:
            self._listeners.add(listener)

        def remove() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return remove

    # Everything below runs with the lock held.

    def _look(self, now: float) -> Look:
        state = self._state
        if state is CircuitState.CLOSED:
            return Look(admitted=True, state=state, retry_after=0.0)
        if state is CircuitState.OPEN:
            if now < self._open_until:
                return Look(admitted=False, state=state, retry_after=self._open_until - now)
            return Look(admitted=True, state=CircuitState.HALF_OPEN, retry_after=0.0)
        running = [end for end in self._probes.values() if now < end]
        if len(running) + self._succeeded_probes < self._settings.half_open_max_calls:
            return Look(admitted=True, state=state, retry_after=0.0)
        wait = min(min(running) - now, MAX_HALF_OPEN_WAIT)
        return Look(admitted=False, state=state, retry_after=wait)

    def _issue(self, now: float) -> Permit:
        probe = self._state is CircuitState.HALF_OPEN
        permit = Permit(self, self._generation, now, probe=probe)
        if probe:
            self._probes[permit] = now + self._settings.probe_lease
        return permit

    def _take_back(self, now: float) -> None:
        while self._given_back:
            self._settle(self._given_back.popleft(), Outcome.IGNORED, now, None)
        for permit in [probe for probe, end in self._probes.items() if now >= end]:
            del self._probes[permit]

    def _settle(
        self, permit: Permit, outcome: Outcome, now: float, retry_after: float | None
    ) -> None:
        if permit.settled:
            return
        permit.settled = True
        if permit.generation != self._generation:
            return
        if permit.probe:
            if self._probes.pop(permit, None) is not None:
                self._settle_probe(outcome, now, retry_after)
        elif outcome is Outcome.SUCCESS:
            self._consecutive = 0
        elif outcome is Outcome.FAILURE:
            self._consecutive += 1
            threshold = self._settings.failure_threshold
            if threshold is not None and self._consecutive >= threshold:
                reason = Reason(Cause.CONSECUTIVE_FAILURES, self._consecutive, threshold)
                self._open(reason, now, retry_after)

    def _settle_probe(self, outcome: Outcome, now: float, retry_after: float | None) -> None:
        if outcome is Outcome.FAILURE:
            self._open(Reason(Cause.PROBE_FAILED), now, retry_after)
        elif outcome is Outcome.SUCCESS:
            self._succeeded_probes += 1
            needed = self._settings.half_open_max_calls
            if self._succeeded_probes >= needed:
                self._enter(CircuitState.CLOSED, Reason(Cause.PROBES_SUCCEEDED, needed, needed))

    def _open(self, reason: Reason, now: float, retry_after: float | None) -> None:
        hinted = retry_after is not None and 0 < retry_after < math.inf
        self._open_until = now + (
            retry_after if hinted and retry_after is not None else self._settings.recovery_timeout
        )
        self._reason = reason
        self._enter(CircuitState.OPEN, reason)

    def _enter(self, state: CircuitState, reason: Reason) -> None:
        self._listeners.put(StateChanged(self._name, self._state, state, reason))
        self._state = state
        self._generation += 1
        self._consecutive = 0
        self._succeeded_probes = 0
        self._probes.clear()
