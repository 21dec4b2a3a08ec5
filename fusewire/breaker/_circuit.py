"""A circuit: what users can do with the machine, a clock and listeners.

It does no I/O and starts no thread. Time comes from an injected monotonic clock.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, overload

from fusewire._locks import inside
from fusewire.breaker._by_hand import ByHandChanges
from fusewire.breaker._call_errors import describe
from fusewire.breaker._classification import CANCELLED_BY_CALLER, classify_error
from fusewire.breaker._durations import NOTES, Durations
from fusewire.breaker._events import (
    CHANGES,
    BreakerAdded,
    BreakerRemoved,
    Event,
    EventT,
    SettingsChanged,
)
from fusewire.breaker._listeners import ListenerEntry
from fusewire.breaker._loans import current_loan, find_loan
from fusewire.breaker._permit import RECORDED, Permit
from fusewire.breaker._rejecting import rejection
from fusewire.breaker._settings import check_settings
from fusewire.breaker._states import (
    FAILURE,
    OPEN,
    SUCCESS,
    Admission,
    CircuitState,
    Outcome,
)
from fusewire.breaker._windows import make_window
from fusewire.errors import NO_ERROR, SettingsError
from fusewire.operation import current_operation, entered_operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._figures import Figures
    from fusewire.breaker._loans import Loan
    from fusewire.breaker._machine import Refusal
    from fusewire.breaker._settings import BreakerSettings
    from fusewire.breaker._snapshot import Snapshot
    from fusewire.errors import CallError

UNTIMED = math.inf
"""The start of a call that is not timed: it is never slow, whenever it ends."""

_ADMITTED = Admission(admitted=True, state=CircuitState.CLOSED, retry_after=0.0)


class Circuit(ByHandChanges):
    """One circuit: state, permits and their settlement.

    Threads and tasks may share it. Signal handlers and finalizers may use it at any time. A forked
    process continues with a copy.
    """

    __slots__ = ()

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name, check_settings(settings), clock, rng)

    @property
    def name(self) -> str:
        """The identity of the dependency that the circuit protects."""
        return self._name

    @property
    def settings(self) -> BreakerSettings:
        """The settings of the circuit."""
        return self._settings

    @property
    def state(self) -> CircuitState:
        """The state now. An open circuit whose recovery time is over is half open."""
        return self.look().state

    def acquire(self, *, timed: bool = True) -> Permit:
        """Return permission to make one call.

        Args:
            timed: whether the dependency determines the time until the settlement. The reader of a
                stream sets its pace, so a stream is not timed; such a call is never slow.

        Raises:
            CircuitOpenError: the circuit does not admit the call.
        """
        if self.lends:
            if self._idle != self._idle_again:
                self._offer_for_good()
            around = current_loan()
            if around is not None:
                borrowed = self._borrow(around, timed=timed)
                if borrowed is not None:
                    return borrowed
        generation = self._free
        if generation:
            return Permit(self, generation, self._clock() if timed else UNTIMED)
        now = self._clock()
        until = self._reject_until
        if now < until:
            self._rejected.add()
            raise rejection(self._name, OPEN, until - now, self._why, self._last_error)
        started = now if timed else UNTIMED
        thread = get_ident()
        if thread in inside:
            came = self._admit_interrupting_call(now, started)
        else:
            came = self._change_under_lock(thread, now, self._admit_or_refuse, started)
        if isinstance(came, Permit):
            if timed:
                came.started = self._clock()  # listeners may have taken their time
            return came
        raise rejection(self._name, *came)

    def look(self) -> Admission:
        """Return what would become of a call made now. Takes no permit and changes nothing."""
        # Without the lock, where a call needs none either, and no event waits to be delivered.
        quiet = self._free and self._room and not self._listeners.changes
        if quiet and self._published[0] is CircuitState.CLOSED:
            return _ADMITTED
        now = self._clock()
        thread = get_ident()
        if thread in inside:
            return self._look_interrupting(now)
        return self._change_under_lock(thread, now, self._look)

    def __enter__(self, *_: object) -> NoReturn:
        """Refuse ``with breaker:``, which does not say which call it stands for."""
        raise SettingsError(
            f"circuit {self._name!r} must not be entered itself: write `with breaker.acquire():`, "
            "which takes the permit for one call"
        )

    __exit__ = __aenter__ = __aexit__ = __enter__

    def can_execute(self) -> bool:
        """Return whether a call made now would be admitted."""
        return self.look().admitted

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        retry_after: float | None = None,
        error: BaseException | CallError | None = None,
    ) -> None:
        """Record the outcome of the call that `permit` was issued for. Only the first one counts.

        The permit's own methods do the same in fewer words.
        """
        now = self._clock()
        if self.durations is not None:  # most circuits measure nothing, and store nothing
            durations = self.durations
            if (
                outcome is SUCCESS
                and now < durations.quick_until
                and permit.measured_as is None
                and not permit.settled
                and permit.started != UNTIMED
                and entered_operation() is None
            ):
                permit.measured_as = RECORDED  # as _measure() does, which costs a call more
                durations.note_quickly(now - permit.started)
                if len(durations.notes) >= NOTES:
                    durations.count_if_due()
            else:
                self._measure(durations, permit, now, outcome)
        notes = self._healthy
        if (
            outcome is SUCCESS
            and len(notes) < self._permit_room
            and now < self._room_until
            and now - permit.started <= self._slow_after
            and permit.generation == self._free
        ):
            # Counting the note settles the permit: see Machine.
            notes.append(permit)
            return
        named = NO_ERROR
        if outcome is FAILURE:
            named = self._describe(error)
        thread = get_ident()
        first = True
        if thread in inside:
            self._defer(now, self._settle, permit, outcome, retry_after, named)
        else:
            first = self._change_under_lock(
                thread, now, self._settle, permit, outcome, retry_after, named
            )
        if first and outcome is FAILURE:
            self._note_failure(retry_after)

    def classify(self, error: BaseException, started: float = UNTIMED) -> Outcome:
        """Return what a call that ended with `error` says about the dependency.

        Args:
            error: what it ended with.
            started: the clock's time when it began. Without it, a cancellation is always ignored.
        """
        max_wait = self._settings.max_wait
        if (
            max_wait is not None
            and isinstance(error, CANCELLED_BY_CALLER)
            and self._clock() - started >= max_wait
        ):
            return Outcome.FAILURE
        return classify_error(self._settings, error)

    def replace_settings(self, settings: BreakerSettings) -> None:
        """Continue with other settings. State, totals and failures in a row are kept.

        The window keeps what fits into the new one; a window of the other kind starts empty. If the
        circuit is open, its open time ends when it was going to. If it is closed, it opens at once
        if what it has counted exceeds the new settings.

        Raises:
            SettingsError: `settings` is not a :class:`BreakerSettings`.
        """
        check_settings(settings)
        self._change(self._clock(), self._take_settings, settings)

    def measure_durations(self) -> None:
        """Record from now on how long calls take, in :attr:`durations`. Idempotent."""
        self._change(self._clock(), self._start_measuring, Durations(self._clock))

    def figures(self, *, durations: bool = True) -> Figures:
        """Return what changes of the breaker, without the content of its window.

        It takes about 10 µs whatever the window, and holds up no call for longer than a call does.
        Measured durations add 4 µs for each method, and once the counting of up to 128 calls that
        calls would have to do otherwise. A signal handler or finalizer that interrupts a change may
        not see that change yet.

        Args:
            durations: whether to read the durations too, if they are measured.
        """
        now = self._clock()
        measured = self.durations if durations else None
        totals = None if measured is None else measured.totals()  # outside the circuit's lock
        thread = get_ident()
        if thread in inside:
            return self._read_figures(now, self._look_interrupting(now), totals)
        return self._change_under_lock(thread, now, self._look_and_read_figures, totals)

    def snapshot(self) -> Snapshot:
        """Return all state and counters at one moment.

        A signal handler or finalizer that interrupts a change may not see that change yet.
        """
        now = self._clock()
        thread = get_ident()
        if thread in inside:
            snapshot = self._take_snapshot(now, self._look_interrupting(now))
        else:
            snapshot = self._change_under_lock(thread, now, self._look_and_take_snapshot)
        if self.durations is not None:
            snapshot = replace(snapshot, durations=self.durations.dump())
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Continue where another breaker of this name was when `snapshot` was taken.

        The rest of an open time counts from now. Probes in flight are dropped. If the snapshot has
        durations, they are measured from now on.

        Raises:
            ValueError: the snapshot is of a breaker with another name.
        """
        if snapshot.name != self._name:
            raise ValueError(
                f"a snapshot of circuit {snapshot.name!r} cannot be restored to {self._name!r}"
            )
        self._change(self._clock(), self._load_snapshot, snapshot)

    @overload
    def add_listener(self, listener: Callable[[Event], None]) -> Callable[[], None]: ...

    @overload
    def add_listener(
        self, listener: Callable[[EventT], None], kinds: type[EventT] | tuple[type[EventT], ...]
    ) -> Callable[[], None]: ...

    def add_listener(
        self, listener: Callable[[Any], None], kinds: Any = CHANGES
    ) -> Callable[[], None]:
        """Call `listener` with events of `kinds`. Return a function that removes it.

        Listeners are called in order after the circuit's lock is released, on the thread that
        caused the event or on one that is already delivering. What they raise is logged and changes
        nothing. Per-call events (:class:`CallEvent`) go only to listeners that ask for them,
        because they slow every call down.
        """
        entry = ListenerEntry.of(listener, kinds)
        self._change(self._clock(), self._listen, entry)

        def remove() -> None:
            self._change(self._clock(), self._listen_no_more, entry)

        return remove

    def _describe(self, error: BaseException | CallError | None) -> CallError:
        """Return what may be kept of the error of a failed call. It may call the error's code."""
        return describe(error, with_message=self._settings.log_messages)

    def _note_failure(self, retry_after: float | None = None) -> None:
        """Note on the current operation that a call was made and failed."""
        operation = current_operation()
        if operation is not None:
            operation.note_failure(self._name, retry_after=retry_after)

    def _borrow(self, around: Loan, *, timed: bool) -> Permit | None:
        """Borrow the permit of an enclosing call, if one of these loans is of this circuit."""
        loan = find_loan(self, around)
        thread = get_ident()
        if loan is None or thread in inside:
            return None
        now = self._clock()
        return self._change_under_lock(
            thread, now, self._lend, self, loan, now if timed else UNTIMED
        )

    def _stop_offering(self) -> None:
        """Stop offering loans for healthy calls until two calls overlap."""
        self._change(self._clock(), self._refresh_idle)

    def _withdraw(self, permit: Permit) -> None:
        """Take back a permit with which no call was made."""
        self._change(self._clock(), self._take_back, permit)

    # The steps of changes. Each runs under the lock, with the time as its first argument.

    def _admit_or_refuse(self, now: float, started: float) -> Permit | Refusal:
        return self._admit(self, now, started) or self._refusal(now)

    def _admit_interrupting_call(self, now: float, started: float) -> Permit | Refusal:
        """Answer a call of code that interrupts a change of its own thread."""
        answer = self._admit_interrupting(now)
        if isinstance(answer, int):
            return Permit(self, answer, started)
        self._rejected.add()
        self._defer(now, self._report_rejection, answer[0], answer[1])
        return answer

    def _take_settings(self, now: float, settings: BreakerSettings) -> None:
        old, self._settings = self._settings, settings
        window = make_window(settings, now)
        if type(window) is type(self._window):
            window.load(self._window.dump(now), now)
        self._window = window
        if settings.ramp_duration is None:
            self._ramp = None
        if settings.open_on_hanging:
            self._in_flight.reconsider(now, old.probe_lease)
        else:
            self._in_flight.clear()
        if settings != old:
            self._listeners.put(SettingsChanged(self._name, old, settings))
        self._refresh()
        self._apply_settings(now)

    def _listen(self, _now: float, entry: ListenerEntry) -> None:
        self._listeners.add(entry)
        self._refresh()

    def _listen_no_more(self, _now: float, entry: ListenerEntry) -> None:
        self._listeners.remove(entry)
        self._refresh()

    def _join(
        self, now: float, entry: ListenerEntry, still: Callable[[], bool] = lambda: True
    ) -> None:
        """Let a registry's listener hear of this circuit, if it is `still` to hear of it."""
        if still() and not self._listeners.holds(entry):
            self._listeners.put(BreakerAdded(self._name), (entry,))
            self._listen(now, entry)
            self._close_fast_paths()  # so that the next call delivers it

    def _leave(self, now: float, entries: tuple[ListenerEntry, ...]) -> None:
        """Let a registry's listeners hear of this circuit for the last time."""
        heard = tuple(entry for entry in entries if self._listeners.holds(entry))
        for entry in heard:
            self._listen_no_more(now, entry)
        self._listeners.put(BreakerRemoved(self._name), heard)
