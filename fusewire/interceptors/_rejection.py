"""What a caller gets when the circuit does not admit the call: an error that gRPC users know."""

from __future__ import annotations

import math
from typing import Any, Self

import grpc
import grpc.aio

from fusewire.errors import NO_ERROR, CallError, CircuitOpenError
from fusewire.interceptors._retry_info import write_retry_after


class Rejection(CircuitOpenError):  # noqa: N818 - the state of things, as in CircuitOpenError
    """What the rejections on both kinds of channel have in common."""

    def __init__(
        self,
        name: str,
        state: str,
        retry_after: float,
        reason: str = "",
        last_error: CallError = NO_ERROR,
    ) -> None:
        # Not through super(): grpc.aio.AioRpcError, which comes next in the order of base classes,
        # would take the breaker's name for a status code.
        Exception.__init__(self, name, state, retry_after, reason)
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.reason = reason
        self._last_error = last_error
        self._added: tuple[tuple[str, str | bytes], ...] = ()

    @classmethod
    def of(cls, refused: CircuitOpenError) -> Self:
        """Make the rejection of a gRPC call from the breaker's refusal."""
        error = CallError(refused.error_type, refused.error_status)
        return cls(refused.name, refused.state, refused.retry_after, refused.reason, error)

    def add_trailing_metadata(self, pairs: tuple[tuple[str, str | bytes], ...]) -> None:
        """Add `pairs`, which come from a fallback, to the trailing metadata."""
        self._added += tuple(pairs)

    def debug_error_string(self) -> str:
        """Return the text that grpcio's own errors have for debugging."""
        return str(self)

    def _pairs(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return when to come back, as pushback and as RetryInfo, and what a fallback added."""
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
        kind, arguments, state = CircuitOpenError.__reduce__(self)
        return kind, arguments, {**state, "_added": self._added}


def add_trailing_metadata(error: grpc.RpcError, added: tuple[tuple[str, str | bytes], ...]) -> None:
    """Add pairs to the trailing metadata that `error` gives."""
    if isinstance(error, Rejection):
        error.add_trailing_metadata(added)
        return
    # grpcio's errors cannot be copied with other metadata, because the sync ones hold the state of
    # the call, and the caller must get the same object. So only this object's method is replaced.
    before: Any = error.trailing_metadata() or ()
    after: Any = (*before, *added)
    if isinstance(error, grpc.aio.AioRpcError):
        after = grpc.aio.Metadata(*after)
    error.trailing_metadata = lambda: after  # type: ignore[method-assign] # see above
