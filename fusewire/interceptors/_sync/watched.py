"""What calls of a sync channel share that end only when their fallback has answered."""

# grpcio documents the methods of calls and futures.

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._locks import make_condition
from fusewire.interceptors._done_callbacks import DoneCallbacks
from fusewire.interceptors._sync.completed import FallbackReply
from fusewire.interceptors._sync.completion import CollectableCall, when_over
from fusewire.interceptors._sync.executor import run_callbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.interceptors._call import GuardedCall, Pairs
    from fusewire.interceptors._stage import Stage


def answer(guarded: GuardedCall, error: grpc.RpcError) -> FallbackReply | None:
    """Return the fallback's reply in place of `error`; None if it has none. It may block."""
    if guarded.fallback is None:
        return None
    try:
        message = guarded.reply_sync(error)
    except Exception as reason:  # noqa: BLE001 - logged and chained to the error by keep_original()
        guarded.keep_original(error, reason)
        return None
    return FallbackReply(message, guarded.breaker)


class WatchedCall(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A call that says how the inner call ended, or how its fallback answered.

    Args:
        inner: the call, or the guard's own rejection.
        guarded: what is known of it.
        stage: IN_FLIGHT; FAILED for a rejection.
    """

    def __init__(self, inner: Any, guarded: GuardedCall, stage: Stage) -> None:
        self._inner = inner
        self._guarded = guarded
        self._stage = stage
        self._changed = make_condition()
        self._done_callbacks = DoneCallbacks()
        self.args = ()  # an exception keeps what it is made with, and shows it

    def _watch_inner(self) -> None:
        # Weakly, so that grpcio still cancels a call whose user has dropped it.
        remains = CollectableCall(self._guarded, self._inner)
        when_over(self._inner, functools.partial(_inner_ended, remains, weakref.ref(self)))

    def inner_ended(self) -> None:
        """Take note of the inner call's end; never raises, never blocks."""
        raise NotImplementedError

    def _final(self, timeout: float | None = None) -> Any:
        """Wait until it is known how the call ended, and return the call that says how.

        Raises:
            grpc.FutureTimeoutError: `timeout` seconds were not enough.
        """
        raise NotImplementedError

    def _end(self, stage: Stage) -> None:
        """Enter `stage`, which is the last, and call back."""
        with self._changed:
            if not self._stage.last:
                self._stage = stage
            self._changed.notify_all()
        run_callbacks(self._done_callbacks)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when it is over; return False if it is already, and do not call it."""
        with self._changed:
            if self.done():
                return False
            first = not self._done_callbacks
            self._done_callbacks.add(callback)
        if first:
            # A call that nobody holds but that has something to say when it is over lives on.
            when_over(self._inner, functools.partial(_hold, self))
        return True

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Call `fn` with this call when it is over."""
        if not self.add_callback(functools.partial(fn, self)):
            fn(self)

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._final().code()
        return code

    def details(self) -> str:
        details: str = self._final().details()
        return details

    def debug_error_string(self) -> str:
        text: str = self._final().debug_error_string()
        return text

    def initial_metadata(self) -> Pairs:
        metadata: Pairs = self._inner.initial_metadata()
        return metadata

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        metadata: Pairs = self._final().trailing_metadata()
        return metadata

    def time_remaining(self) -> float:
        left: float = self._inner.time_remaining()
        return left

    def is_active(self) -> bool:
        return not self.done()

    def running(self) -> bool:
        return not self.done()

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return self._stage.over

    def result(self, timeout: float | None = None) -> Any:
        return self._final(timeout).result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        error: Exception | None = self._final(timeout).exception()
        return error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        trace: TracebackType | None = self._final(timeout).traceback()
        return trace


def _inner_ended(remains: CollectableCall, reference: weakref.ref[WatchedCall]) -> None:
    call = reference()
    if call is None:  # dropped by its user, and the inner call with it
        remains.settle()
    else:
        call.inner_ended()


def _hold(_: WatchedCall) -> None:
    """Do nothing: the reference is what counts."""
