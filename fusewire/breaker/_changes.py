"""One change at a time: the machine under a lock, whatever interrupts it.

A signal handler or a finalizer may use the circuit during a change, in the thread that makes it.
It must not wait for that change, and must not see half of it. So the change that it wants is
deferred until just before the interrupted change ends. What it asks is answered from what the last
complete change published, which is one tuple. It never gets a probe, which would have to be
counted.

An exception such as ``KeyboardInterrupt`` may break off a change, and a process may fork while
another thread makes one. The state may then be inconsistent, so the next change starts the circuit
again.
"""

from __future__ import annotations

import math
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from fusewire._locks import bare_lock, inside, renew_in_child
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._machine import MAX_HALF_OPEN_WAIT, RAMPING
from fusewire.breaker._measuring import MeasuringMachine
from fusewire.breaker._states import BY_HAND, Admission, CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._machine import Refusal
    from fusewire.breaker._settings import BreakerSettings

T = TypeVar("T")

_WHOLE = 0
_BROKEN = -1


class Changes(MeasuringMachine):
    """A machine that threads share, that signal handlers and finalizers may use, and that may fork.

    The lock is held only while the state changes: never during a guarded call, a listener or a log
    line.
    """

    __slots__ = ("__weakref__", "_changing", "_clock", "_deferred", "_lock", "_published")

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        super().__init__(name, settings, clock, rng)
        self._clock = clock
        self._lock = bare_lock()
        # The thread that makes a change, or how the last one ended.
        self._changing = _WHOLE
        # A list, because it is nearly always empty, and an empty deque takes 760 bytes.
        self._deferred: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []
        self._publish()
        renew_in_child(self, Changes._renew)

    def _change(self, now: float, step: Callable[..., T], *args: Any) -> T | None:
        """Make the change ``step(now, *args)`` and return its result.

        In code that interrupts a change of its own thread, the change is deferred and the result is
        None.
        """
        thread = get_ident()
        if thread in inside:
            self._defer(now, step, *args)
            return None
        return self._change_under_lock(thread, now, step, *args)

    def _change_now(self, step: Callable[..., T], *args: Any) -> T | None:
        """Make the change at the time of the circuit's own clock."""
        return self._change(self._clock(), step, *args)

    def _change_under_lock(self, thread: int, now: float, step: Callable[..., T], *args: Any) -> T:
        """Make a change in this `thread`, which is in no other change, and deliver its events."""
        listeners = self._listeners
        try:
            inside.add(thread)
            with self._lock:
                before = listeners.number
                try:
                    if self._changing:
                        self._start_again(now)
                    self._changing = thread
                    self._catch_up(now)
                    if self._deferred:
                        self._do_deferred()
                    result = step(now, *args)
                    if self._deferred:
                        self._do_deferred()
                    if self._refreshed:
                        self._publish()
                    self._changing = _WHOLE
                    last = listeners.number
                except BaseException:
                    self._break_off()
                    raise
        finally:
            inside.discard(thread)
        if self._deferred:
            # Deferred after the last check, before the thread had left the section.
            self._change_under_lock(thread, now, _nothing)
        if listeners.changes or listeners.calls:
            listeners.deliver(before, last)
            if listeners.left:
                self._close_fast_paths()
        return result

    def _defer(self, now: float, step: Callable[..., object], *args: Any) -> None:
        self._deferred.append((now, step, args))
        self._close_fast_paths()

    def _close_fast_paths(self) -> None:
        """Make the next call take the lock, so that it does what is left to do."""
        self._room = self._permit_room = 0
        self._reject_until = -math.inf

    def _do_deferred(self) -> None:
        while self._deferred:
            now, step, args = self._deferred.pop(0)
            step(now, *args)

    def _publish(self) -> None:
        """Publish, in one step, what answers code that interrupts this thread."""
        state, ramp, why = self._state, self._ramp, self._why
        until = self._open_until if state is CircuitState.OPEN else -math.inf
        if ramp is not None:
            until, why = ramp.end, RAMPING
        self._published = (state, self._generation, until, why)
        self._refreshed = False

    def _admit_interrupting(self, now: float) -> int | Refusal:
        """Return the generation for a call that interrupts a change, or why it is rejected."""
        error = self._last_error
        state, generation, until, why = self._published
        if state is CircuitState.CLOSED:
            if now >= until:
                return generation
        elif state is CircuitState.OPEN:
            if now < until:
                return state, until - now, why, error
            state = CircuitState.HALF_OPEN
        elif state is CircuitState.FORCED_OPEN:
            return state, self._settings.recovery_timeout, why, error
        elif state is not CircuitState.HALF_OPEN:
            return generation
        # It would be a probe or part of a ramp, and would have to be counted.
        return state, MAX_HALF_OPEN_WAIT, why, error

    def _look_interrupting(self, now: float) -> Admission:
        answer = self._admit_interrupting(now)
        if isinstance(answer, int):
            return Admission(True, self._published[0], 0.0)  # noqa: FBT003 - by position, as elsewhere
        state, wait, *_ = answer
        return Admission(False, state, wait)  # noqa: FBT003 - as above

    def _start_again(self, now: float) -> None:
        """Start again with nothing counted: closed, unless the state was set by hand."""
        state = self._state if self._state in BY_HAND else CircuitState.CLOSED
        self._enter(state, Reason(Cause.INTERRUPTED), now)
        self._publish()

    def _break_off(self) -> None:
        """Make the next change start the circuit again."""
        self._changing = _BROKEN
        self._free = self._idle = self._idle_again = 0
        self._close_fast_paths()

    def _renew(self) -> None:
        """Continue in a forked child: keep the state, drop what the parent's threads were doing."""
        if self._changing == get_ident():
            return  # this thread forked during its own change, and continues it
        self._lock = bare_lock()
        self._listeners.drop()
        self._probes.clear_in_flight()
        self._in_flight.clear()
        if self._changing:
            self._break_off()


def _nothing(_now: float) -> None:
    """Change nothing. What is deferred is done all the same."""
