"""Calls of a sync channel that a fallback may answer: their replies, and their futures."""

# The methods of calls and futures do what grpcio says of them, with the arguments that it gives.
# ruff: noqa: ARG002

from __future__ import annotations

import contextvars
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._locks import make_condition
from fusewire.interceptors._fallback import FALLBACK_METADATA
from fusewire.interceptors._sync.completion import Remains, settle, when_over
from fusewire.interceptors._sync.executor import DoneCallbacks, run_in_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.interceptors._call import GuardedCall, Pairs


class FallbackReply(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A call that a fallback answered: over, and OK.

    It is an RpcError as all of grpcio's own calls are, which libraries ask for by ``isinstance``.
    """

    def __init__(self, message: Any, breaker: str) -> None:
        self.args = ()  # an exception keeps what it is made with, and shows it
        self.message = message
        self._trailing: Pairs = ((FALLBACK_METADATA, breaker),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""

    def debug_error_string(self) -> str:
        return ""

    def initial_metadata(self) -> Pairs:
        return ()

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        return self._trailing

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:  # type: ignore[override] # grpcio gives None without a deadline; the stub does not know
        return None

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        fn(self)

    def result(self, timeout: float | None = None) -> Any:
        return self.message

    def exception(self, timeout: float | None = None) -> None:
        return None

    def traceback(self, timeout: float | None = None) -> None:
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._trailing[0][1]!r}, from its fallback>"

    __str__ = __repr__


def answer(guarded: GuardedCall, request: Any, error: grpc.RpcError) -> FallbackReply | None:
    """Have the fallback answer instead of `error`, which may take its time; None if it does not."""
    if guarded.fallback is None or guarded.info is None:
        return None
    try:
        message = guarded.fallback.reply_sync(guarded.info, request, error)
    except Exception as reason:  # noqa: BLE001 - logged and attached to the error by keep()
        guarded.keep(error, reason)
        return None
    return FallbackReply(message, guarded.breaker)


class FallbackFuture(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A future whose failure a fallback may answer: pending until both are over.

    The fallback is asked in a worker's thread, or, until one is free, in a thread that waits
    without a limit: so fallbacks that wait for each other's futures never wait for a worker.

    Args:
        inner: the call's own future.
        guarded: the call.
        request: the request message.
        rejected: whether `inner` is the guard's own rejection.
    """

    def __init__(
        self, inner: Any, guarded: GuardedCall, request: Any, *, rejected: bool = False
    ) -> None:
        self._inner = inner
        self._guarded = guarded
        self._request = request
        self._context = contextvars.copy_context()
        self._rejected = rejected
        self._condition = make_condition()
        self._unasked = False  # the fallback is to answer, and nobody has asked it yet
        self._final: Any = None  # the call that answers every question, once it is known
        self._callbacks: list[Callable[[], None]] = []
        self._done_callbacks = DoneCallbacks()
        self.args = ()  # an exception keeps what it is made with, and shows it
        # Weakly, so that grpcio still cancels a call whose user has dropped it.
        ended = functools.partial(_inner_ended, Remains(guarded, inner), weakref.ref(self))
        when_over(inner, ended)

    def inner_ended(self) -> None:
        """Take note of the inner call's end; never raises, never blocks."""
        if not self._rejected and (not settle(self._guarded, self._inner) or self.cancelled()):
            self._end_with(self._inner)
            return
        with self._condition:
            self._unasked = True
            self._condition.notify_all()
        try:
            run_in_worker(self._fall_back)
        except RuntimeError as reason:  # the interpreter is shutting down
            self._guarded.keep(self._inner, reason)
            self._end_with(self._inner)

    def _fall_back(self) -> None:
        """Ask the fallback, unless somebody has."""
        with self._condition:
            if not self._unasked:
                return
            self._unasked = False
        final = self._inner
        try:
            reply = self._context.run(answer, self._guarded, self._request, self._inner)
            if reply is not None:
                final = reply
                self._guarded.answered(self._inner)
        finally:
            self._end_with(final)

    def _end_with(self, final: Any) -> None:
        self._guarded.declined()  # nothing is changed by it where the fallback has answered
        with self._condition:
            if self._final is None:
                self._final = final
            callbacks, self._callbacks = self._callbacks, []
            self._condition.notify_all()
        for callback in callbacks:
            self._done_callbacks.add(callback)

    def _wait(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._condition:
                while self._final is None and not (deadline is None and self._unasked):
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise grpc.FutureTimeoutError
                    self._condition.wait(left)
                if self._final is not None:
                    return self._final
            self._fall_back()

    def cancel(self) -> bool:
        """Cancel the call; a fallback that has begun is not stopped."""
        if not self._inner.cancel():
            return False
        with self._condition:
            self._final = self._inner
            self._condition.notify_all()
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when it is over; returns False, and does not, if it is already."""
        with self._condition:
            if self._final is not None:
                return False
            self._callbacks.append(callback)
            first = len(self._callbacks) == 1
        if first:
            # A future that nobody holds but that has something to say when it is over lives on.
            when_over(self._inner, functools.partial(_hold, self))
        return True

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Call `fn` with this future when it is over."""
        if not self.add_callback(functools.partial(fn, self)):
            fn(self)

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._wait().code()
        return code

    def details(self) -> str:
        details: str = self._wait().details()
        return details

    def debug_error_string(self) -> str:
        text: str = self._wait().debug_error_string()
        return text

    def initial_metadata(self) -> Pairs:
        metadata: Pairs = self._inner.initial_metadata()
        return metadata

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        metadata: Pairs = self._wait().trailing_metadata()
        return metadata

    def is_active(self) -> bool:
        return self._final is None

    def time_remaining(self) -> float:
        left: float = self._inner.time_remaining()
        return left

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def running(self) -> bool:
        return self._final is None

    def done(self) -> bool:
        return self._final is not None

    def result(self, timeout: float | None = None) -> Any:
        return self._wait(timeout).result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        error: Exception | None = self._wait(timeout).exception()
        return error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        trace: TracebackType | None = self._wait(timeout).traceback()
        return trace

    def __repr__(self) -> str:
        return repr(self._inner if self._final is None else self._final)

    __str__ = __repr__


def _inner_ended(remains: Remains, reference: weakref.ref[FallbackFuture]) -> None:
    future = reference()
    if future is None:  # dropped by its user, and the call with it
        remains.settle()
    else:
        future.inner_ended()


def _hold(_: FallbackFuture) -> None:
    """Do nothing: the reference is what counts."""
