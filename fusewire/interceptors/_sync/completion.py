"""The end of a call of a sync channel: when it comes, how it is read, and what it settles."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from fusewire.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.interceptors._call import GuardedCall

# grpcio's status of a call whose interceptor raised, whatever the cause (grpc/_interceptor.py).
_INTERCEPTOR_RAISED = (grpc.StatusCode.INTERNAL, "Exception raised while intercepting the RPC")

# grpcio's details of a call that was dropped before its end (grpc/_channel.py).
_DROPPED = "Cancelled upon garbage collection!"

# grpcio's class of the calls of a SingleThreadedUnaryStream, which report their end only to a
# reader.
_REPORTS_TO_READERS = "_SingleThreadedRendezvous"


def settle(guarded: GuardedCall, call: Any) -> bool:
    """Settle `guarded` by an error or a call that is over; never raises, never blocks.

    Returns:
        Whether the fallback answers in its place.
    """
    try:
        if isinstance(call, CircuitOpenError):
            guarded.release(sent=False)  # another guard's rejection
            return False
        code, details = call.code(), call.details()
        if (code, details) == _INTERCEPTOR_RAISED and call.exception() is not call:
            return settle(guarded, call.exception())
        if code is grpc.StatusCode.OK:
            guarded.succeed()
            return False
        return guarded.fail(code, details, call.trailing_metadata())
    except Exception:  # noqa: BLE001 - without a status it is no evidence; grpcio raises ValueError
        guarded.release()
        return False


def when_over(call: Any, callback: functools.partial[Any]) -> None:
    """Call `callback` when `call` is over, now if it is, without keeping `call` alive."""
    # A partial and not a plain function: grpcio logs the `func` of a callback that raises, and a
    # callback without one kills the channel's thread (https://github.com/grpc/grpc/pull/42765).
    if call.done():
        callback()
        return
    try:
        pending = call.add_callback(callback)
    except (AttributeError, NotImplementedError):  # a future of another interceptor's
        call.add_done_callback(lambda _: callback())
    else:
        if not pending:
            callback()


def watch(guarded: GuardedCall, call: Any) -> None:
    """Settle `guarded` when `call` is over, and let `call` be collected as if it were unwatched."""
    when_over(call, functools.partial(CollectableCall.settle, CollectableCall(guarded, call)))


class CollectableCall:
    """What a guard keeps of a call: enough to know its end, too little to keep it alive.

    A reader may take the last message and drop the call before the channel's thread reports the
    end. Then how the call ended is read from its state, which outlives it.

    Args:
        guarded: released if the call is dropped before its end.
        call: the call.
    """

    __slots__ = ("_call", "_guarded", "_state")

    def __init__(self, guarded: GuardedCall, call: Any) -> None:
        self._guarded = guarded
        self._state = getattr(call, "_state", None)  # grpcio's own calls have it
        self._call: Callable[[], Any]
        reads = type(call).__name__ == _REPORTS_TO_READERS
        dropped = functools.partial(_dropped, guarded, self._state) if reads else None
        try:
            self._call = weakref.ref(call, dropped)
        except TypeError:  # another interceptor's call, whose class has no weak references
            self._call = functools.partial(_same, call)
        guarded.watch_by(self._look)

    def _look(self) -> None:
        """Settle by the call if it is over."""
        call = self._call()
        over = getattr(self._state, "code", None) is not None if call is None else call.done()
        if over:
            self.settle()

    def settle(self) -> bool:
        """Settle by the call, which is over.

        Returns:
            Whether the fallback answers in its place.
        """
        call = self._call()
        return settle(self._guarded, EndedCall(self._state) if call is None else call)


class EndedCall:
    """A call that has been collected, read from its state, if it ended before that."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def code(self) -> grpc.StatusCode:
        """Return the status that it ended with.

        Raises:
            ValueError: its user dropped it before its end, which cancelled it.
        """
        code: grpc.StatusCode | None = getattr(self._state, "code", None)
        if code is None or self.details() == _DROPPED:
            raise ValueError("the call was dropped before its end")
        return code

    def details(self) -> str:
        """Return the details of the status."""
        details: str | bytes = self._state.details
        return details.decode(errors="replace") if isinstance(details, bytes) else details

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata."""
        return self._state.trailing_metadata


def _same(call: Any) -> Any:
    return call


def _dropped(guarded: GuardedCall, state: Any, _: object) -> None:
    """Release a call that its user cancelled or dropped.

    This may run wherever objects are collected, so it waits for no lock: see Permit.
    """
    if state is not None and state.code is grpc.StatusCode.CANCELLED:
        guarded.release()
