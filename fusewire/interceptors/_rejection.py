"""What a caller gets when the circuit does not admit the call: an error that gRPC users know.

A rejection has no peer and no wire: it was over before it began. As a Call and a Future it behaves
like any call that ended with UNAVAILABLE.
"""

# The methods of calls and futures have the arguments that grpcio gives them.
# ruff: noqa: ARG002

from __future__ import annotations

import functools
import math
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc
import grpc.aio

from fusewire.errors import CircuitOpenError
from fusewire.interceptors._retry_info import write_retry_after
from fusewire.interceptors._sync.executor import DoneCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Rejection(CircuitOpenError):  # noqa: N818 - the state of things, as in CircuitOpenError
    """What the rejections of both channels have in common."""

    def __init__(self, name: str, state: str, retry_after: float, reason: str = "") -> None:
        # Not by way of super(): grpc.aio.AioRpcError follows in the order of base classes, does not
        # cooperate, and would take the breaker's name for a status code.
        Exception.__init__(self, name, state, retry_after, reason)
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.reason = reason
        self._added: tuple[tuple[str, str | bytes], ...] = ()

    @classmethod
    def of(cls, refused: CircuitOpenError) -> Self:
        """Make the rejection of a gRPC call from the breaker's refusal."""
        return cls(refused.name, refused.state, refused.retry_after, refused.reason)

    def add_trailing_metadata(self, pairs: tuple[tuple[str, str | bytes], ...]) -> None:
        """Say more in the trailing metadata: what a fallback has to tell."""
        self._added += tuple(pairs)

    def debug_error_string(self) -> str:
        """Return the text that grpcio's own errors have for debugging."""
        return str(self)

    def _pairs(self) -> tuple[tuple[str, str | bytes], ...]:
        # Made when asked: a rejection is the hot path of an outage.
        wait = self.retry_after if self.ends_by_itself else math.inf
        return write_retry_after(wait, str(self)) + self._added

    def __str__(self) -> str:
        return CircuitOpenError.__str__(self)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.state!r}, "
            f"{self.retry_after!r}, {self.reason!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.name, self.state, self.retry_after, self.reason)
        return type(self), arguments, {"_added": self._added}


class RejectedCall(Rejection, grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """The circuit did not admit a call on a sync channel; it is the error and the call in one."""

    _seen = False  # its user knows that it is over
    _callbacks: DoneCallbacks | None = None

    def code(self) -> grpc.StatusCode:
        """Return UNAVAILABLE."""
        self._seen = True
        return grpc.StatusCode.UNAVAILABLE

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return no metadata: nothing came from a server."""
        return ()

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        """Return when to come back, as pushback and as RetryInfo."""
        return self._pairs()

    def is_active(self) -> bool:
        """Return False: it is over."""
        return False

    def time_remaining(self) -> None:  # type: ignore[override] # grpcio gives None without a deadline; the stub does not know
        """Return None: it never had a deadline of its own."""

    def cancel(self) -> bool:
        """Return False: there is nothing left to cancel."""
        return False

    def cancelled(self) -> bool:
        """Return False."""
        return False

    def running(self) -> bool:
        """Return False."""
        return False

    def done(self) -> bool:
        """Return True."""
        self._seen = True
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Return False, as a call that is over does: `callback` will not be called."""
        return False

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Call `fn` with this call, at once if its user has seen that it is over.

        Otherwise it comes from a thread of ours, as grpcio's come from one of the channel's: for
        all that the caller knows, the call is in flight.
        """
        if self._seen:
            fn(self)
            return
        if self._callbacks is None:
            self._callbacks = DoneCallbacks()
        self._callbacks.add(functools.partial(fn, self))

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
        """Return a traceback of itself being raised."""
        self._seen = True
        try:
            raise self
        except RejectedCall:
            return sys.exc_info()[2]


class AioRejectedCall(Rejection, grpc.aio.AioRpcError):
    """The circuit did not admit a call on an asyncio channel."""

    def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata: nothing came from a server."""
        return grpc.aio.Metadata()

    def trailing_metadata(self) -> grpc.aio.Metadata:  # type: ignore[override] # as grpcio itself does
        """Return when to come back, as pushback and as RetryInfo."""
        return grpc.aio.Metadata(*self._pairs())
