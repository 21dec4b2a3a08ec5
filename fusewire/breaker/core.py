"""A circuit: the machine's arithmetic under a lock, with a clock and with listeners.

It does no I/O and starts no thread. Time comes from an injected monotonic clock. The lock is held
for state arithmetic only, never across a protected call, a listener or a log line.
"""

from __future__ import annotations

import math
import random
import threading
import time
from typing import TYPE_CHECKING

from fusewire.breaker.events import CHANGES, Cause, Event, Reason, SettingsChanged
from fusewire.breaker.judging import judge_error
from fusewire.breaker.listeners import Hearing
from fusewire.breaker.machine import Machine
from fusewire.breaker.permit import Permit
from fusewire.breaker.settings import BreakerSettings, check_settings
from fusewire.breaker.snapshot import Counters, Snapshot
from fusewire.breaker.states import CircuitState, Look, Outcome
from fusewire.breaker.windows import make_window
from fusewire.errors import CircuitOpenError
from fusewire.operation import current_operation

if TYPE_CHECKING:
    from collections.abc import Callable

UNTIMED = math.inf
"""The start of a call whose duration nobody wants: it is never slow, whenever it ends."""

_ALL = tuple(CircuitState)
_BY_HAND = (CircuitState.FORCED_OPEN, CircuitState.DISABLED, CircuitState.METRICS_ONLY)


class Circuit(Machine):
    """One circuit: state, permits and their settlement. Safe to share by threads and tasks."""

    __slots__ = ("__weakref__", "_clock", "_lock")

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name, check_settings(settings), clock(), chance)
        self._clock = clock
        self._lock = threading.Lock()

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

    def acquire(self, *, timed: bool = True) -> Permit:
        """Get leave to make one call.

        Args:
            timed: whether the time until the settlement is the dependency's. It is not for a
                stream, whose reader sets the pace; such a call is never slow.

        Raises:
            CircuitOpenError: the circuit does not admit the call.
        """
        generation = self._free
        if generation:
            return Permit(self, generation, self._clock() if timed else UNTIMED, False)  # noqa: FBT003 - see Permit
        now = self._clock()
        until = self._reject_until
        if now < until:
            self._rejected.add()
            self._tell_operation_of_rejection()
            raise CircuitOpenError(self._name, CircuitState.OPEN, until - now, self._why)
        with self._lock:
            self._tidy(now)
            permit = self._admit(self, now, now if timed else UNTIMED)
            if permit is None:
                refusal = self._refusal(now)
        if self._listeners.queue:
            self._listeners.deliver()
        if permit is not None:
            return permit
        self._tell_operation_of_rejection()
        raise CircuitOpenError(self._name, *refusal)

    def look(self) -> Look:
        """See what would become of a call made now. Takes no permit and changes nothing."""
        now = self._clock()
        with self._lock:
            self._tidy(now)
            look = self._look(now)
        self._listeners.deliver()
        return look

    def can_execute(self) -> bool:
        """Tell whether a call made now would be admitted."""
        return self.look().admitted

    def settle(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Record the outcome of the call that `permit` was given for; only its first one counts.

        The permit's own methods say the same in fewer words.
        """
        now = self._clock()
        if (
            outcome is Outcome.SUCCESS
            and len(self._healthy) < self._permit_room
            and now < self._room_until
            and now - permit.started <= self._slow_after
            and permit.generation == self._free
        ):
            # The permit is settled by whoever counts it: see Machine.
            self._healthy.append(permit)
            return
        if outcome is Outcome.IGNORED:
            # A generator that is collected gives its permit back, and collection can strike while
            # this very thread holds the lock. So giving back never waits for it.
            self._given_back.append(permit)
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._tidy(now)
            finally:
                self._lock.release()
        else:
            with self._lock:
                self._tidy(now)
                failed = outcome is Outcome.FAILURE and not permit.settled
                self._settle(permit, outcome, now, retry_after)
            if failed:
                self._tell_operation(retry_after)
        if self._listeners.queue:
            self._listeners.deliver()

    def judge(self, error: BaseException) -> Outcome:
        """Say what a call that ended with `error` says about the dependency."""
        return judge_error(self._settings, error)

    def force_open(self) -> None:
        """Reject all calls until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.FORCED_OPEN)

    def disable(self) -> None:
        """Admit all calls and count nothing until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.DISABLED)

    def metrics_only(self) -> None:
        """Admit and count all calls, never opening, until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.METRICS_ONLY)

    def automatic(self) -> None:
        """End a state that was set by hand: begin anew, closed. Otherwise do nothing."""
        self._by_hand(CircuitState.CLOSED, only_from=_BY_HAND)

    def reset(self) -> None:
        """Begin anew, closed, with an empty window, whatever the state. Totals are kept."""
        self._by_hand(CircuitState.CLOSED)

    def hold_open(self, seconds: float) -> None:
        """Keep an open circuit open for `seconds` from now at least. Otherwise do nothing.

        For who knows from elsewhere that the dependency is down, such as from a health check. It
        ends of itself, so who holds a circuit open says so again and again. No maximum applies.

        Raises:
            ValueError: `seconds` is no finite number above 0.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be a finite number above 0, got {seconds!r}")
        now = self._clock()
        with self._lock:
            self._tidy(now)
            if self._state is CircuitState.OPEN:
                self._open_until = max(self._open_until, now + seconds)
                self._refresh()
        self._listeners.deliver()

    def half_open(self) -> None:
        """End the open time of an open circuit: the next calls are probes. Otherwise do nothing."""
        self._by_hand(CircuitState.HALF_OPEN, only_from=(CircuitState.OPEN,))

    def replace_settings(self, settings: BreakerSettings) -> None:
        """Go on with other settings. State, totals and failures in a row are kept.

        The window is kept as far as the new one holds it; one of the other kind begins empty. The
        end of an open time that runs already does not move. A circuit that is closed opens at once
        if what it has seen is too much by the new settings.

        Raises:
            SettingsError: `settings` are no :class:`BreakerSettings`.
        """
        check_settings(settings)
        now = self._clock()
        with self._lock:
            self._tidy(now)
            old, self._settings = self._settings, settings
            window = make_window(settings, now)
            if type(window) is type(self._window):
                window.load(self._window.dump(now), now)
            self._window = window
            if settings.ramp_duration is None:
                self._ramp = None
            if settings.open_on_hanging:
                self._running.reconsider(now, old.probe_lease)
            else:
                self._running.clear()
            if settings != old:
                self._listeners.put(SettingsChanged(self._name, old, settings))
            self._refresh()
            self._apply_rules(now)
        self._listeners.deliver()

    def snapshot(self) -> Snapshot:
        """Read all figures at one moment."""
        now = self._clock()
        with self._lock:
            self._tidy(now)
            snapshot = self._take_snapshot(now)
        self._listeners.deliver()
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go on where another breaker of this name was when `snapshot` was taken of it.

        The rest of an open time counts from now. Probes that were under way are forgotten.

        Raises:
            ValueError: the snapshot is of a breaker of another name.
        """
        if snapshot.name != self._name:
            raise ValueError(
                f"a snapshot of circuit {snapshot.name!r} cannot be restored to {self._name!r}"
            )
        now = self._clock()
        with self._lock:
            self._tidy(now)
            self._load_snapshot(snapshot, now)
        self._listeners.deliver()

    def add_listener(
        self,
        listener: Callable[[Event], None],
        kinds: type[Event] | tuple[type[Event], ...] = CHANGES,
    ) -> Callable[[], None]:
        """Tell `listener` of events of `kinds`; returns a function that ends it.

        Listeners are called in order after the circuit's lock is released, on the thread that
        caused the event or on one that is delivering already. What they raise is logged and changes
        nothing. Single calls (:class:`CallEvent`) are told only to who names them: they make each
        call dearer.
        """
        hearing = Hearing(listener, kinds if isinstance(kinds, tuple) else (kinds,))
        now = self._clock()
        with self._lock:
            self._tidy(now)
            self._listeners.add(hearing)
            self._refresh()

        def remove() -> None:
            with self._lock:
                self._listeners.remove(hearing)
                self._refresh()

        return remove

    def _tell_operation(self, retry_after: float | None = None) -> None:
        """Let the unit of work that this context is doing know that a call was made and failed."""
        operation = current_operation()
        if operation is not None:
            operation.note_failure(self._name, retry_after=retry_after)

    def _tell_operation_of_rejection(self) -> None:
        """Let the unit of work that this context is doing know that a call was refused."""
        operation = current_operation()
        if operation is not None:
            operation.note_rejection(self._name)

    def _withdraw(self, permit: Permit) -> None:
        """Take back a permit with which no call was made."""
        with self._lock:
            permit.settled = True
            self._probes.finish(permit)
            self._running.finish(permit)

    def _by_hand(self, state: CircuitState, only_from: tuple[CircuitState, ...] = _ALL) -> None:
        now = self._clock()
        with self._lock:
            self._tidy(now)
            if self._state in only_from:
                reason = Reason(Cause.BY_HAND)
                if state is CircuitState.FORCED_OPEN:
                    self._note_reason(reason)
                self._enter(state, reason, now)
        self._listeners.deliver()

    def _take_snapshot(self, now: float) -> Snapshot:
        look = self._look(now)
        # Read first: it lets a time window forget what is too old.
        content = self._window.dump(now)
        return Snapshot(
            name=self._name,
            state=look.state,
            retry_after=look.retry_after,
            reason=self._reason,
            consecutive_failures=self._consecutive,
            reopenings=self._reopenings,
            calls=self._window.calls,
            failed=self._window.failed,
            slow=self._window.slow,
            probes_running=len(self._probes),
            probes_succeeded=self._probes.succeeded,
            counters=Counters(
                succeeded=self._succeeded,
                failed=self._failed,
                ignored=self._ignored,
                slow=self._slow,
                rejected=self._rejected.value(),
                late=self._late,
                expired=self._expired,
                opened=self._opened,
            ),
            window=content,
        )

    def _load_snapshot(self, snapshot: Snapshot, now: float) -> None:
        self._enter(snapshot.state, Reason(Cause.RESTORED), now)
        self._note_reason(snapshot.reason)
        self._open_until = now + snapshot.retry_after
        self._consecutive = snapshot.consecutive_failures
        self._reopenings = snapshot.reopenings
        self._probes.succeeded = snapshot.probes_succeeded
        self._window = make_window(self._settings, now)
        self._window.load(snapshot.window, now)
        counters = snapshot.counters
        self._succeeded, self._failed = counters.succeeded, counters.failed
        self._ignored, self._slow = counters.ignored, counters.slow
        self._rejected.set(counters.rejected)
        self._late = counters.late
        self._expired, self._opened = counters.expired, counters.opened
        self._refresh()
        self._apply_rules(now)
