"""Response streams of a sync channel that are watched: for a fallback, or for a first message.

A stream that needs neither is the inner channel's own object, of which only the end is watched.
"""

# grpcio documents the methods of calls and futures.

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Self

import grpc

from fusewire.interceptors._fallback import as_messages
from fusewire.interceptors._methods import checked_message
from fusewire.interceptors._stage import Stage
from fusewire.interceptors._sync.completed import FallbackReply
from fusewire.interceptors._sync.completion import settle
from fusewire.interceptors._sync.watched import WatchedCall, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.interceptors._call import GuardedCall


def is_call(stream: Any) -> bool:
    """Return whether `stream` says when it is over.

    OpenTelemetry's interceptor, for one, makes a plain generator of it
    (https://github.com/open-telemetry/opentelemetry-python-contrib/issues/2014).
    """
    return hasattr(stream, "add_callback")


class WatchedStream(WatchedCall):
    """A response stream under guard. What it does not know itself, the inner stream does.

    If the call fails before its first message, a fallback may give the messages. It is asked in the
    thread that reads, which it may block. The inner stream may be a plain iterator.
    """

    def __init__(self, inner: Any, guarded: GuardedCall, stage: Stage = Stage.IN_FLIGHT) -> None:
        super().__init__(inner, guarded, stage)
        self._readers = 0  # threads that wait for the first message
        self._replies: Iterator[Any] = iter(())  # the fallback's messages
        # What the fallback answers, or, once the call has ended, what it has failed to answer.
        self._error: grpc.RpcError | None = None
        if stage is Stage.IN_FLIGHT and is_call(inner):
            self._watch_inner()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._stage not in _FROM_FALLBACK:
            try:
                return self._next_message()
            except grpc.RpcError as error:
                if not self._fall_back(error):
                    raise
        return self._next_reply()

    def _next_message(self) -> Any:
        if self._stage is Stage.ENDED and self._error is not None:
            raise self._error
        if self._stage is Stage.STREAMING:
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
            ended = self._stage is Stage.UNDECIDED
            if begun and self._stage in _BEFORE_FIRST_MESSAGE:
                self._guarded.first_message()
                self._stage = Stage.CLOSING if ended else Stage.STREAMING
            self._changed.notify_all()
        if ended:
            self.inner_ended()

    def _next_reply(self) -> Any:
        error: Any = self._error
        try:
            message = next(self._replies)
        except StopIteration:
            self._guarded.answered(error)
            self._end(Stage.ANSWERED)
            raise
        except Exception as reason:  # noqa: BLE001 - what is raised has it as its cause
            self._guarded.keep_original(error, reason)
            self._end(Stage.ENDED)
            raise error  # noqa: B904 - its cause is set
        self._guarded.answered(error)  # whether or not the reader wants the others
        return message

    def _conclude(self, ended: Any) -> bool:
        """Settle by how the inner stream ended; return whether the fallback is to answer."""
        with self._changed:
            if self._stage.settled:
                return self._stage.answers
            may_answer = self._stage in _BEFORE_FIRST_MESSAGE
            if settle(self._guarded, ended) and may_answer and not self._cancelled_here():
                self._stage = Stage.FAILED
                self._changed.notify_all()
                return True
            self._guarded.declined()
            self._stage = Stage.ENDED
        self._end(Stage.ENDED)
        return False

    def _cancelled_here(self) -> bool:
        cancelled = getattr(self._inner, "cancelled", None)  # another interceptor's may have none
        return cancelled is not None and bool(cancelled())

    def _fall_back(self, error: grpc.RpcError) -> bool:
        """Have the fallback give messages in place of `error`; return whether it does."""
        self._conclude(error)
        with self._changed:
            while self._stage is Stage.ASKING:
                self._changed.wait()  # for the thread that asks
            if self._stage is not Stage.FAILED:
                return self._stage.answers
            self._stage = Stage.ASKING
            self._error = error
        replies = None
        try:
            replies = self._ask(error)
        finally:
            if replies is None:
                self._guarded.declined()
                self._end(Stage.ENDED)
            else:
                with self._changed:
                    self._replies = replies
                    self._stage = Stage.ANSWERING
                    self._changed.notify_all()
        return replies is not None

    def _ask(self, error: grpc.RpcError) -> Iterator[Any] | None:
        """Have the fallback give messages. It may block, so no lock is held."""
        reply = answer(self._guarded, error)
        if reply is None:
            return None
        try:
            replies = iter(as_messages(reply.message))
        except TypeError as reason:
            self._guarded.keep_original(error, reason)
            return None
        return map(functools.partial(checked_message, self._guarded.method), replies)

    def inner_ended(self) -> None:
        """Take note of the inner stream's end; never raises, never blocks."""
        with self._changed:
            if self._stage in _BEFORE_FIRST_MESSAGE and self._readers:
                # The channel's thread may report the end before a reader has taken the message
                # that came before it. The reader knows whether there was one, and comes here then.
                self._stage = Stage.UNDECIDED
                return
        self._conclude(self._inner)

    def _final(self, timeout: float | None = None) -> Any:
        if not self._stage.settled:
            if timeout is None:
                self._inner.code()
            else:
                self._inner.exception(timeout)
            with self._changed:
                while self._stage in _BEFORE_FIRST_MESSAGE and self._readers:
                    self._changed.wait()
            self._conclude(self._inner)
        if self._stage.answers:
            return FallbackReply(None, self._guarded.breaker)
        return self._inner

    def cancel(self) -> bool:
        """Cancel the call; a fallback that has begun is not stopped."""
        cancelled: bool = self._inner.cancel()
        return cancelled

    def done(self) -> bool:
        return self._stage.over or bool(self._inner.done() and self._final() is self._inner)

    def __repr__(self) -> str:
        if self._stage.answers:
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
        if not is_call(self._inner):
            self._guarded.release()


_BEFORE_FIRST_MESSAGE = (Stage.IN_FLIGHT, Stage.UNDECIDED)
_FROM_FALLBACK = (Stage.ANSWERING, Stage.ANSWERED)
