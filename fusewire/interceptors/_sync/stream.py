"""Response streams of a sync channel that are looked into: for a fallback, or a first message.

A stream that needs neither is the inner channel's own object, which only tells its end.
"""

# The methods of calls and futures do what grpcio says of them.

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Self

import grpc

from fusewire._locks import make_condition
from fusewire.interceptors._fallback import FALLBACK_METADATA, as_messages
from fusewire.interceptors._methods import checked_message
from fusewire.interceptors._sync.completion import Remains, settle, when_over
from fusewire.interceptors._sync.executor import DoneCallbacks
from fusewire.interceptors._sync.future import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from fusewire.interceptors._call import GuardedCall, Pairs


def is_call(stream: Any) -> bool:
    """Tell whether `stream` says when it is over.

    OpenTelemetry's interceptor, for one, makes a plain generator of it
    (https://github.com/open-telemetry/opentelemetry-python-contrib/issues/2014).
    """
    return hasattr(stream, "add_callback")


class GuardedStream(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A response stream under guard. What it does not know itself, the inner stream does.

    If the call fails before its first message, a fallback may give the messages. It is asked in the
    thread that reads, which it may block.

    Args:
        inner: the call, a plain iterator of another interceptor's, or a rejection.
        guarded: what is known of it.
        request: the request message, or the iterator of them.
        rejected: whether `inner` is the guard's own rejection.
    """

    def __init__(
        self, inner: Any, guarded: GuardedCall, request: Any, *, rejected: bool = False
    ) -> None:
        self._inner = inner
        self._guarded = guarded
        self._request = request
        self._rejected = rejected
        self._changed = make_condition()
        self._begun = False  # a message has been given
        self._readers = 0  # threads that wait for the first message
        self._over = False  # the inner stream has told its end
        self._answers: bool | None = True if rejected else None  # whether the fallback does
        self._asked = False  # the fallback
        self._replies: Iterator[Any] | None = None
        self._exhausted = False
        self._cause: grpc.RpcError | None = None  # what the fallback answers
        self._error: grpc.RpcError | None = None  # what is left when the fallback fails, too
        self._callbacks: list[Callable[[], None]] = []
        self._done_callbacks = DoneCallbacks()
        self.args = ()  # an exception keeps what it is made with, and shows it

    def begin(self) -> None:
        """Begin to watch the inner stream, which is not the guard's own rejection."""
        if is_call(self._inner):
            # Weakly, so that grpcio still cancels a call whose user has dropped it.
            remains = Remains(self._guarded, self._inner)
            ended = functools.partial(_inner_ended, remains, weakref.ref(self))
            when_over(self._inner, ended)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._replies is None:
            try:
                return self._next_message()
            except grpc.RpcError as error:
                if not self._fall_back(error):
                    raise
        return self._next_reply()

    def _next_message(self) -> Any:
        if self._error is not None:
            raise self._error
        if self._begun:
            return self._take()
        with self._changed:
            self._readers += 1
        begun = False
        try:
            message = self._take()
            begun = True
        finally:
            self._has_read(begun=begun)
        return message

    def _take(self) -> Any:
        try:
            return next(self._inner)
        except grpc.RpcError:
            raise
        except StopIteration:
            if not is_call(self._inner):
                self._guarded.succeed()
            raise
        except Exception:
            if not is_call(self._inner):
                self._guarded.release()
            raise

    def _has_read(self, *, begun: bool) -> None:
        with self._changed:
            self._readers -= 1
            if begun and not self._begun:
                self._begun = True
                self._guarded.first_message()
            over = self._over and not self._readers
            self._changed.notify_all()
        if over:
            self.inner_ended()

    def _next_reply(self) -> Any:
        try:
            message = next(self._replies or iter(()))
        except StopIteration:
            if self._cause is not None:
                self._guarded.answered(self._cause)
            self._end()
            raise
        except Exception as reason:
            error = self._cause
            if error is None:
                raise
            self._guarded.keep(error, reason)
            self._error, self._replies, self._answers = error, None, False
            self._end()
            raise error  # noqa: B904 - its cause is set
        if self._cause is not None:
            self._guarded.answered(self._cause)  # whether or not the reader wants the others
        return message

    def _conclude(self, ended: Any) -> bool:
        """Settle by how the inner stream ended; tell whether the fallback is to answer."""
        with self._changed:
            if self._answers is None:
                failed = settle(self._guarded, ended)
                self._answers = failed and not self._begun and not self._cancelled_here()
                if not self._answers:
                    self._guarded.declined()
            return self._answers

    def _cancelled_here(self) -> bool:
        cancelled = getattr(self._inner, "cancelled", None)  # another interceptor's may have none
        return cancelled is not None and bool(cancelled())

    def _fall_back(self, error: grpc.RpcError) -> bool:
        with self._changed:
            if self._error is not None or not self._conclude(error):
                return False
            while self._asked and self._replies is None and self._error is None:
                self._changed.wait()  # for the thread that asks
            if self._asked:
                return self._replies is not None
            self._asked = True
        replies = None
        try:
            replies = self._ask(error)
        finally:
            if replies is None:
                self._guarded.declined()
            with self._changed:
                if replies is None:
                    self._answers, self._error = False, error
                else:
                    self._replies, self._cause = replies, error
                self._changed.notify_all()
            if replies is None:
                self._end()
        return replies is not None

    def _ask(self, error: grpc.RpcError) -> Iterator[Any] | None:
        """Have the fallback give messages. It may block, so no lock is held."""
        reply = answer(self._guarded, self._request, error)
        if reply is None:
            return None
        try:
            replies: Iterator[Any] = iter(as_messages(reply.message))
            if self._guarded.info is not None:
                replies = map(
                    functools.partial(checked_message, self._guarded.info.method), replies
                )
        except TypeError as reason:
            self._guarded.keep(error, reason)
            return None
        return replies

    def inner_ended(self) -> None:
        """Take note of the inner stream's end; never raises, never blocks."""
        with self._changed:
            self._over = True
            if self._readers:
                # The channel's thread may tell the end before a reader has taken the message that
                # came before it: whether there was one, the reader knows, and takes note then.
                return
        if not self._conclude(self._inner):
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._exhausted = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._done_callbacks.add(callback)

    def _answered(self) -> bool:
        """Wait for the inner stream's end; tell whether a fallback gives the messages."""
        if self._answers is None:
            self._inner.code()
            with self._changed:
                while self._readers and self._answers is None:
                    self._changed.wait()
                self._conclude(self._inner)
        return self._answers is True

    def cancel(self) -> bool:
        """Cancel the call; a fallback that has begun is not stopped."""
        cancelled: bool = self._inner.cancel()
        return cancelled

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when it is over; returns False, and does not, if it is already."""
        with self._changed:
            if self.done():
                return False
            self._callbacks.append(callback)
            first = len(self._callbacks) == 1
        if first and not self._rejected:
            # A stream that nobody holds but that has something to say when it is over lives on.
            when_over(self._inner, functools.partial(_hold, self))
        return True

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Call `fn` with this stream when it is over."""
        if not self.add_callback(functools.partial(fn, self)):
            fn(self)

    def code(self) -> grpc.StatusCode:
        if self._answered():
            return grpc.StatusCode.OK
        code: grpc.StatusCode = self._inner.code()
        return code

    def details(self) -> str:
        details: str = "" if self._answered() else self._inner.details()
        return details

    def debug_error_string(self) -> str:
        text: str = "" if self._answered() else self._inner.debug_error_string()
        return text

    def initial_metadata(self) -> Pairs:
        metadata: Pairs = self._inner.initial_metadata()
        return metadata

    def trailing_metadata(self) -> Pairs:  # type: ignore[override] # the stub's RpcError and Call disagree; this is Call's
        if self._answered():
            return ((FALLBACK_METADATA, self._guarded.breaker),)
        metadata: Pairs = self._inner.trailing_metadata()
        return metadata

    def is_active(self) -> bool:
        return not self.done()

    def time_remaining(self) -> float:
        left: float = self._inner.time_remaining()
        return left

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def running(self) -> bool:
        return not self.done()

    def done(self) -> bool:
        return bool(self._exhausted or (self._inner.done() and not self._answered()))

    def result(self, timeout: float | None = None) -> Any:
        if self._answers:
            return None
        result = self._inner.exception(timeout)
        return None if result is None or self._answered() else self._inner.result(timeout)

    def exception(self, timeout: float | None = None) -> Exception | None:
        if self._answers:
            return None
        error: Exception | None = self._inner.exception(timeout)
        return None if self._answered() else error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        if self._answers:
            return None
        trace: TracebackType | None = self._inner.traceback(timeout)
        return None if self._answered() else trace

    def __repr__(self) -> str:
        if self._answers:
            return f"<{type(self).__name__} of {self._guarded.breaker!r}, from its fallback>"
        return repr(self._inner)

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        """Pass on what other interceptors' streams have: a generator's ``close``, say."""
        if name == "_inner":  # before __init__
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __del__(self) -> None:
        """Release the permit of a stream that says nothing more; an inner call is cancelled."""
        if not self._rejected and not is_call(self._inner):
            self._guarded.release()


def _inner_ended(remains: Remains, reference: weakref.ref[GuardedStream]) -> None:
    stream = reference()
    if stream is None:  # dropped by its user, and the call with it
        remains.settle()
    else:
        stream.inner_ended()


def _hold(_: GuardedStream) -> None:
    """Do nothing: the reference is what counts."""
