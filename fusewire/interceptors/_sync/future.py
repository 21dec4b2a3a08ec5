"""Futures of a sync channel whose failure a fallback may answer."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any

import grpc

from fusewire.interceptors._stage import Stage
from fusewire.interceptors._sync.completion import settle
from fusewire.interceptors._sync.executor import run_fallback
from fusewire.interceptors._sync.watched import WatchedCall, answer

if TYPE_CHECKING:
    from fusewire.interceptors._call import GuardedCall
    from fusewire.interceptors._sync.completed import FallbackReply


class WatchedFuture(WatchedCall):
    """A future whose failure a fallback may answer: pending until both are over.

    The fallback is asked in a worker's thread, or, until one is free, in a thread that waits
    without a limit: so fallbacks that wait for each other's futures never wait for a worker.
    """

    def __init__(self, inner: Any, guarded: GuardedCall, stage: Stage = Stage.IN_FLIGHT) -> None:
        super().__init__(inner, guarded, stage)
        self._context = contextvars.copy_context()
        self._reply: FallbackReply | None = None
        self._watch_inner()

    def inner_ended(self) -> None:
        """Take note of the inner call's end; never raises, never blocks."""
        rejected = self._stage is Stage.FAILED
        failed = rejected or (settle(self._guarded, self._inner) and not self.cancelled())
        with self._changed:
            if failed and not self._stage.over:
                self._stage = Stage.FAILED
                self._changed.notify_all()
        if self._stage is not Stage.FAILED:
            self._end_as_the_call()
            return
        try:
            run_fallback(self._fall_back)
        except RuntimeError as reason:  # the interpreter is shutting down
            self._guarded.keep_original(self._inner, reason)
            self._end_as_the_call()

    def _fall_back(self) -> None:
        """Ask the fallback, unless another thread has."""
        with self._changed:
            if self._stage is not Stage.FAILED:
                return
            self._stage = Stage.ASKING
        try:
            self._reply = self._context.run(answer, self._guarded, self._inner)
            if self._reply is not None:
                self._guarded.answered(self._inner)
        finally:
            if self._reply is None:
                self._end_as_the_call()
            else:
                self._end(Stage.ANSWERED)

    def _end_as_the_call(self) -> None:
        self._guarded.declined()
        self._end(Stage.ENDED)

    def _final(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                while not (self._stage.over or (deadline is None and self._stage is Stage.FAILED)):
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise grpc.FutureTimeoutError
                    self._changed.wait(left)
                if self._stage.over:
                    return self._reply if self._stage is Stage.ANSWERED else self._inner
            self._fall_back()

    def cancel(self) -> bool:
        """Cancel the call; a fallback that has begun is not stopped."""
        if not self._inner.cancel():
            return False
        with self._changed:
            unasked = self._stage is Stage.FAILED  # another interceptor's future, over already
            self._stage = Stage.ENDED
            self._changed.notify_all()
        if unasked:
            self._end_as_the_call()
        return True

    def __repr__(self) -> str:
        return repr(self._reply if self._stage is Stage.ANSWERED else self._inner)

    __str__ = __repr__
