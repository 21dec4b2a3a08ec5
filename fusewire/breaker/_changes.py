"""One change at a time: the machine's arithmetic under a lock, whatever interrupts it.

A signal handler or a finalizer may use the circuit in the midst of a change, in the thread that
makes it. It must not wait for that change, and must not see half of it. So what it wants changed is
deferred, and done before the change that it interrupted ends; and it is answered from what the last
whole change left, which is one tuple. It is never given a probe, which would have to be counted.

A change that an exception breaks off, such as a ``KeyboardInterrupt``, or that another thread was
making when the process forked, leaves figures that may not fit together. The next change then
starts the circuit from the beginning.
"""

from __future__ import annotations

import math
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from fusewire._locks import bare_lock, inside, renew_in_child
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._lending import LendingMachine
from fusewire.breaker._machine import MAX_HALF_OPEN_WAIT, RAMPING
from fusewire.breaker._states import BY_HAND, Admission, CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._machine import Refusal
    from fusewire.breaker._settings import BreakerSettings

T = TypeVar("T")

_WHOLE = 0
_BROKEN = -1


class Changes(LendingMachine):
    """A machine that threads share, that signal handlers and finalizers use, and that forks.

    The lock is held for state arithmetic only: never across a protected call, a listener or a log
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
        # The thread that makes a change, or what became of the last one.
        self._changing = _WHOLE
        # A list, because it is nearly always empty, and an empty deque takes 760 bytes.
        self._deferred: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []
        self._publish()
        renew_in_child(self, Changes._renew)

    def _change(self, now: float, step: Callable[..., T], *args: Any) -> T | None:
        """Make the change ``step(now, *args)`` and return what it returns.

        A thread that interrupted itself has it made when it goes on, and gets None.
        """
        thread = get_ident()
        if thread in inside:
            self._defer(now, step, *args)
            return None
        return self._alone(thread, now, step, *args)

    def _alone(self, thread: int, now: float, step: Callable[..., T], *args: Any) -> T:
        """Make the change in this `thread`, which is inside no other, and deliver its events."""
        listeners = self._listeners
        try:
            inside.add(thread)
            with self._lock:
                before = listeners.number
                try:
                    if self._changing:
                        self._start_again(now)
                    self._changing = thread
                    self._tidy(now)
                    if self._deferred:
                        self._take_up_deferred()
                    result = step(now, *args)
                    if self._deferred:
                        self._take_up_deferred()
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
            # It came after the last look, when the thread had not yet left the section.
            self._alone(thread, now, _nothing)
        if listeners.changes or listeners.calls:
            listeners.deliver(before, last)
            if listeners.left:
                self._close_fast_paths()
        return result

    def _defer(self, now: float, step: Callable[..., object], *args: Any) -> None:
        self._deferred.append((now, step, args))
        self._close_fast_paths()

    def _close_fast_paths(self) -> None:
        """Have whatever comes next make a change, which takes up what is left to do."""
        self._room = self._permit_room = 0
        self._reject_until = -math.inf

    def _take_up_deferred(self) -> None:
        while self._deferred:
            now, step, args = self._deferred.pop(0)
            step(now, *args)

    def _publish(self) -> None:
        """Leave, in one step, what a thread that interrupts itself is answered from."""
        state, ramp, why = self._state, self._ramp, self._why
        until = self._open_until if state is CircuitState.OPEN else -math.inf
        if ramp is not None:
            until, why = ramp.end, RAMPING
        self._published = (state, self._generation, until, why)
        self._refreshed = False

    def _admit_interrupting(self, now: float) -> int | Refusal:
        """Answer a call of a thread that interrupted itself: the generation, or why it may not."""
        state, generation, until, why = self._published
        if state is CircuitState.CLOSED:
            if now >= until:
                return generation
        elif state is CircuitState.OPEN:
            if now < until:
                return state, until - now, why
            state = CircuitState.HALF_OPEN
        elif state is CircuitState.FORCED_OPEN:
            return state, self._settings.recovery_timeout, why
        elif state is not CircuitState.HALF_OPEN:
            return generation
        # It would be a probe, or one of a growing share: it would have to be counted.
        return state, MAX_HALF_OPEN_WAIT, why

    def _look_interrupting(self, now: float) -> Admission:
        answer = self._admit_interrupting(now)
        if isinstance(answer, int):
            return Admission(True, self._published[0], 0.0)  # noqa: FBT003 - by position, as elsewhere
        state, wait, _ = answer
        return Admission(False, state, wait)  # noqa: FBT003 - as above

    def _start_again(self, now: float) -> None:
        """Start with nothing seen. A state that a person set stays; else the circuit is closed."""
        state = self._state if self._state in BY_HAND else CircuitState.CLOSED
        self._enter(state, Reason(Cause.INTERRUPTED), now)
        self._publish()

    def _break_off(self) -> None:
        """Have the next change start the circuit from the beginning."""
        self._changing = _BROKEN
        self._free = self._idle = self._idle_again = 0
        self._close_fast_paths()

    def _renew(self) -> None:
        """Go on in a forked child: the state stays, what the parent's threads were doing ends."""
        if self._changing == get_ident():
            return  # this thread forked in the midst of a change, and goes on with it
        self._lock = bare_lock()
        self._listeners.forget()
        self._probes.forget_in_flight()
        self._in_flight.clear()
        if self._changing:
            self._break_off()


def _nothing(_now: float) -> None:
    """Change nothing: what is deferred is taken up all the same."""
