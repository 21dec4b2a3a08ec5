"""One call under guard, whatever its channel: from before its first byte to its settlement.

The channels differ in how a call is made and how it tells its end; what is decided does not.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors.classification import CallEnd
from fusewire.interceptors.fallback import CallInfo, FallbackDeclined, attach
from fusewire.interceptors.hints import read_retry_after
from fusewire.interceptors.rejection import Rejection
from fusewire.operation import (
    IDEMPOTENCY_KEY,
    CallNote,
    entered_operation,
    fallbacks_allowed,
    noted_by_caller,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.breaker import Permit
    from fusewire.interceptors.fallback import CallFallback
    from fusewire.interceptors.policy import MethodPolicy

logger = logging.getLogger(__name__)

Pairs = tuple[tuple[str, str | bytes], ...]


class GuardedCall:
    """One call under guard. Make it in the caller's context: what is read from it is read here.

    Attributes:
        info: the call as its fallback knows it; None without a fallback.
        fallback: what may answer in its place; None if nothing may.
        as_it_is: whether the call, once admitted, goes as the user made it.
        metadata: what to send instead of the user's metadata; None for the user's own, untouched.
    """

    __slots__ = (
        "_began",
        "_noted",
        "_operation",
        "_permit",
        "_policy",
        "_timeout",
        "as_it_is",
        "fallback",
        "info",
        "metadata",
    )

    def __init__(
        self,
        policy: MethodPolicy,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        timeout: float | None,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._began = time.monotonic()
        self._permit: Permit | None = None
        self._noted = False
        self._operation = entered_operation()
        self.fallback: CallFallback | None = None
        self.info: CallInfo | None = None
        self.as_it_is = False
        self.metadata: Pairs | None = None
        if policy.prepares:
            self._prepare(
                metadata,
                keyed=policy.idempotent and self._operation is not None,
                falls_back=policy.fallback is not None and fallbacks_allowed(),
            )

    @property
    def breaker(self) -> str:
        """The name of the breaker."""
        return self._policy.breaker.name

    def admit(self, *, timed: bool = True) -> CircuitOpenError | None:
        """Take the call's permit; returns the refusal if the circuit does not admit it.

        Args:
            timed: whether the time until it is settled counts as the dependency's.
        """
        try:
            self._permit = permit = self._policy.breaker.acquire(timed=timed)
        except CircuitOpenError as refused:
            return refused
        self.as_it_is = self.metadata is None and not permit.probe
        return None

    def wait_for_ready(self, given: bool | None) -> bool | None:  # noqa: FBT001 - grpcio's own flag, passed on
        """Say whether the call is to wait for a connection.

        A channel in reconnect back-off fails a probe without trying, so a probe that has a deadline
        waits, unless the user decided.
        """
        if given is None and self._timeout is not None and self._permit and self._permit.probe:
            return True
        return given

    def succeed(self) -> None:
        """Settle: the call ended OK."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.success()

    def first_message(self) -> None:
        """Take note of the first message of the response stream."""
        if self._policy.streams == "first_message":
            self.succeed()

    def release(self) -> None:
        """Settle: the call says nothing about the dependency."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()

    def fail(self, code: grpc.StatusCode, details: str | None, trailing: Any) -> bool:
        """Settle by the status that the call ended with; never raises.

        Returns:
            whether the fallback is to answer in its place.
        """
        outcome = Outcome.IGNORED
        retry_after = condition = None
        try:
            pairs = tuple((key, value) for key, value in trailing or ())
            retry_after = read_retry_after(pairs)
            end = CallEnd(
                method=self._policy.method,
                code=code,
                details=details or "",
                trailing_metadata=pairs,
                timeout=self._timeout,
                retry_after=retry_after,
                duration=time.monotonic() - self._began,
            )
            condition = end.condition
            outcome = Outcome(self._policy.classify(end))
        except Exception:
            logger.exception("the end of a call to %s is not counted", self._policy.method)
        permit, self._permit = self._permit, None
        if permit is not None:
            with noted_by_caller():
                permit.settle(outcome, retry_after=retry_after)
        if self._operation is not None and not self._noted:
            self._noted = True
            self._operation.note(
                CallNote(self.breaker, outcome.value, code.name, retry_after, condition)
            )
        return outcome is Outcome.FAILURE and self.fallback is not None

    def answered(self, error: grpc.RpcError) -> None:
        """Take note that the fallback answered in place of `error`."""
        if self._operation is not None and isinstance(error, CircuitOpenError):
            self._operation.note_answered(error.name)

    def keep(self, error: grpc.RpcError, reason: Exception) -> None:
        """Make `error` what the caller sees after all, because the fallback ended with `reason`."""
        if isinstance(reason, FallbackDeclined):
            if reason.metadata:
                _add_trailing_metadata(error, reason.metadata)
            return
        logger.error("the fallback of %s failed", self._policy.method, exc_info=reason)
        attach(error, reason)

    def _prepare(
        self, metadata: Iterable[tuple[str, str | bytes]] | None, *, keyed: bool, falls_back: bool
    ) -> None:
        if not (keyed or falls_back):
            return
        if metadata is not None and not isinstance(metadata, grpc.aio.Metadata | tuple | list):
            # It may be an iterator: what is read here could not be sent any more.
            metadata = self.metadata = tuple(metadata)
        try:
            pairs: Pairs = tuple((key, value) for key, value in metadata or ())
        except (TypeError, ValueError):
            return  # not metadata; grpcio says so in its own way
        if keyed and self._operation and not any(key == IDEMPOTENCY_KEY for key, _ in pairs):
            pairs = (*pairs, (IDEMPOTENCY_KEY, self._operation.next_key(self._policy.method)))
        if falls_back and self._policy.fallback is not None:
            info = CallInfo(self._policy.method, self.breaker, pairs, self._timeout)
            try:
                self.info = self._policy.fallback.prepare(info)
                pairs = self.info.metadata
                self.fallback = self._policy.fallback
            except Exception:
                logger.exception("a call to %s goes without its fallback", self._policy.method)
        if pairs or metadata is not None:
            self.metadata = pairs


def _add_trailing_metadata(error: grpc.RpcError, added: Pairs) -> None:
    if isinstance(error, Rejection):
        error.add_trailing_metadata(added)
        return
    # grpcio's errors cannot be made anew with other metadata (the sync ones hold the call's state),
    # and the caller is to see the very error. So the object's own answer replaces its class's.
    before: Any = error.trailing_metadata() or ()
    after: Any = (*before, *added)
    if isinstance(error, grpc.aio.AioRpcError):
        after = grpc.aio.Metadata(*after)
    error.trailing_metadata = lambda: after  # type: ignore[method-assign] # see above
