"""Calls of a sync channel that end without a server: rejections, and fallbacks' replies.

They have no peer and no wire. Each is a Call and a Future, as any call of grpcio's that has ended.
"""

# grpcio documents the methods of calls and futures, and names their arguments.
# ruff: noqa: ARG002

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc

from fusewire.interceptors._done_callbacks import DoneCallbacks
from fusewire.interceptors._fallback import FALLBACK_METADATA
from fusewire.interceptors._rejection import Rejection
from fusewire.interceptors._sync.executor import run_callbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.interceptors._call import Pairs


class CompletedCall(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg, misc] # not subscriptable at run time; the stub's RpcError and Call disagree
    """A call that is over.

    It is an RpcError whatever its end, as all of grpcio's own calls are: libraries ask for that by
    ``isinstance``.
    """

    def details(self) -> str:
        return ""

    def debug_error_string(self) -> str:
        return ""

    def initial_metadata(self) -> Pairs:
        """Return no metadata: nothing came from a server."""
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:  # type: ignore[override] # grpcio gives None without a deadline; the stub does not know
        """Return None: it never had a deadline of its own."""

    def cancel(self) -> bool:
        """Return False: there is nothing left to cancel."""
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Return False, as a call that is over does: `callback` will not be called."""
        return False

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        fn(self)


class RejectedCall(Rejection, CompletedCall):
    """The circuit did not admit a call on a sync channel; it is the error and the call in one."""

    _seen = False  # whether its user knows that it is over

    def code(self) -> grpc.StatusCode:
        """Return UNAVAILABLE."""
        self._seen = True
        return grpc.StatusCode.UNAVAILABLE

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        """Return when to come back, as pushback and as RetryInfo."""
        return self._pairs()

    def done(self) -> bool:
        """Return True."""
        self._seen = True
        return True

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Call `fn` with this call, at once if its user has seen that it is over.

        Otherwise it is called in a thread of ours, as grpcio calls it in one of the channel's: as
        far as the caller knows, the call is in flight.
        """
        if self._seen:
            fn(self)
            return
        # One step: two threads that add their first callbacks must not have a queue each.
        callbacks: DoneCallbacks = self.__dict__.setdefault("_callbacks", DoneCallbacks())
        callbacks.add(functools.partial(fn, self))
        run_callbacks(callbacks)

    def __iter__(self) -> Self:
        """Return itself: as a stream it has no message."""
        return self

    def __next__(self) -> NoReturn:
        """Raise itself."""
        self._seen = True
        raise self

    def result(self, timeout: float | None = None) -> NoReturn:
        """Raise itself."""
        self._seen = True
        raise self

    def exception(self, timeout: float | None = None) -> Self:
        """Return itself."""
        self._seen = True
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Return the traceback that raising this call gives."""
        self._seen = True
        try:
            raise self
        except RejectedCall:
            return sys.exc_info()[2]


class FallbackReply(CompletedCall):
    """A call that a fallback answered: over, and OK.

    Args:
        message: the response; None for a stream, whose messages have been given.
        breaker: the name of the call's breaker.
    """

    def __init__(self, message: Any, breaker: str) -> None:
        self.args = ()  # an exception keeps what it is made with, and shows it
        self.message = message
        self._breaker = breaker

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        return ((FALLBACK_METADATA, self._breaker),)

    def result(self, timeout: float | None = None) -> Any:
        return self.message

    def exception(self, timeout: float | None = None) -> None:
        return None

    def traceback(self, timeout: float | None = None) -> None:
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._breaker!r}, from its fallback>"

    __str__ = __repr__
