"""One guarded call on either kind of channel, from before it is sent until it is settled.

Sync and asyncio channels differ in how a call is made and how its end is read. What follows from
the end is decided here, for both.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.breaker import CallError, CircuitState, Outcome
from fusewire.breaker.internal import rejection
from fusewire.errors import NO_ERROR, CircuitOpenError
from fusewire.interceptors._call_end import CallEnd
from fusewire.interceptors._fallback import CallInfo, FallbackDeclined, chain_cause
from fusewire.interceptors._keys import copy_of
from fusewire.interceptors._rejection import add_trailing_metadata
from fusewire.interceptors._replays import is_replay, marked
from fusewire.interceptors._retry_info import read_retry_after
from fusewire.operation import (
    IDEMPOTENCY_KEY,
    CallNote,
    KeyEnd,
    current_operation,
    entered_operation,
    fallbacks_allowed,
    noted_by_caller,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from fusewire.breaker import Permit
    from fusewire.interceptors._fallback import CallFallback
    from fusewire.interceptors._keys import MethodKeys, RequestSource
    from fusewire.interceptors._policy import MethodPolicy
    from fusewire.operation import KeyClaim, Operation

logger = logging.getLogger("fusewire.interceptors")

_LEFT = 1.0
"""Seconds until the circuit may admit a call whose probe is left to others."""

_LEFT_TO = "its probes are left to stored calls"

Pairs = tuple[tuple[str, str | bytes], ...]


class GuardedCall:
    """One guarded call: :meth:`of` begins one.

    Attributes:
        fallback: what may answer in place of a failure or rejection; None if nothing may.
        unchanged: whether the admitted call is sent exactly as the user made it.
        metadata: what to send instead of the user's metadata; None to send the user's own.
        request: the request to send, and to pass to the fallback.

    Args:
        policy: how the method is guarded.
        timeout: the user's, in seconds.
        request: the request message, or an iterator of them; not asked for once the call is sent.
        operation: the one that the call is made in.
        permit: of a call that was sent.
        began: when it was sent, by the monotonic clock; None for now.
    """

    __slots__ = (
        "_began",
        "_claim",
        "_fallback_counted",
        "_info",
        "_operation",
        "_permit",
        "_policy",
        "_timeout",
        "fallback",
        "metadata",
        "request",
        "unchanged",
    )

    def __init__(
        self,
        policy: MethodPolicy,
        timeout: float | None,
        request: Any = None,
        *,
        operation: Operation | None = None,
        permit: Permit | None = None,
        began: float | None = None,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._began = time.monotonic() if began is None else began
        self._permit = permit
        self._operation = operation
        self._claim: KeyClaim | None = None
        self.request = request
        self.fallback: CallFallback | None = None
        self._info: CallInfo | None = None  # the call as its fallback sees it
        self._fallback_counted = False
        self.unchanged = False
        self.metadata: Pairs | None = None

    @classmethod
    def of(
        cls,
        policy: MethodPolicy,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        timeout: float | None,
        request: Any,
        source: RequestSource,
    ) -> GuardedCall:
        """Begin a call, in its caller's context: context variables are read.

        Args:
            policy: how the method is guarded.
            metadata: the user's.
            timeout: the user's, in seconds.
            request: the request message, or an iterator of them.
            source: what is known of the method's requests.
        """
        operation = entered_operation()
        guarded = cls(policy, timeout, request, operation=operation)
        replay = operation is not None and is_replay()
        if replay or policy.prepares:
            guarded._prepare(metadata, source, replay=replay)
        return guarded

    @property
    def breaker(self) -> str:
        """The breaker's name; empty if the method has none."""
        return "" if self._policy.breaker is None else self._policy.breaker.name

    @property
    def method(self) -> str:
        """The path of the method."""
        return self._policy.method

    def admit(self) -> CircuitOpenError | None:
        """Take the call's permit; return the refusal if the circuit does not admit it."""
        breaker = self._policy.breaker
        if breaker is None:
            self.unchanged = self.metadata is None
            return None
        try:
            self._permit = permit = breaker.acquire(timed=self._policy.timed)
        except CircuitOpenError as refused:
            self._end_key(KeyEnd.NO_EFFECT, falls_back=self.fallback is not None)
            return refused
        if getattr(breaker, "durations", None) is not None:  # not all registries give our breakers
            permit.measured_as = (self._policy.method, current_operation())
        self.unchanged = self.metadata is None
        if permit.probe and self._leaves_probe(breaker.name, getattr(permit, "generation", 0)):
            self._permit = None
            permit.release()
            self._end_key(KeyEnd.NO_EFFECT, falls_back=True)
            return rejection(breaker.name, CircuitState.HALF_OPEN, _LEFT, _LEFT_TO, NO_ERROR)
        if permit.probe:
            self.unchanged = False  # see wait_for_ready
            self._began = time.monotonic()  # listeners to the change to half open took some time
        return None

    def _leaves_probe(self, breaker: str, generation: int) -> bool:
        """Return whether the fallback answers at once, because others probe the circuit."""
        leaves = getattr(self.fallback, "leaves_probe", None)
        if leaves is None:
            return False
        try:
            return bool(leaves(breaker, generation))
        except Exception:
            logger.exception("a call to %s is a probe of its circuit", self._policy.method)
            return False

    def lending(self) -> AbstractContextManager[None]:
        """Lend the permit while the inner channel makes the call, because it may be guarded too."""
        return nullcontext() if self._permit is None else self._permit.lending()

    def wait_for_ready(self, given: bool | None) -> bool | None:  # noqa: FBT001 - grpcio's own flag, passed on
        """Return whether the call waits for a connection.

        A channel in reconnect back-off fails calls without trying. So a probe that has a deadline
        waits, unless the user has decided.
        """
        if given is None and self._timeout is not None and self._permit and self._permit.probe:
            return True
        return given

    def succeed(self) -> None:
        """Settle a call that ended OK."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.success()
        if self._operation is not None and self._policy.breaker is not None:
            self._operation.note_success(self.breaker)
        if self._claim is not None:
            self._claim.end(KeyEnd.ANSWERED)

    def first_message(self) -> None:
        """Take note of the first message of the response stream."""
        if self._policy.until_first_message:
            permit, self._permit = self._permit, None
            if permit is not None:
                permit.success()

    def release(self, *, sent: bool = True) -> None:
        """Settle a call that says nothing about the dependency.

        Args:
            sent: whether the call may have reached the dependency.
        """
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()
        if self._claim is not None:
            self._claim.end(KeyEnd.IN_DOUBT if sent else KeyEnd.NO_EFFECT)

    def fail(self, code: grpc.StatusCode, details: str | None, trailing: Any) -> bool:
        """Settle a call by the status that it ended with, which is not OK; never raises.

        Returns:
            Whether the fallback answers in its place.
        """
        outcome, ended = Outcome.IGNORED, KeyEnd.IN_DOUBT
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
            condition, ended = end.condition, end.key_end
            outcome = Outcome(self._policy.classify(end))
        except (Exception, SystemExit):  # of the user's classify, on a thread of grpcio's perhaps
            logger.exception("the end of a call to %s is not counted", self._policy.method)
        permit, self._permit = self._permit, None
        if permit is not None:
            with noted_by_caller():
                error = CallError("grpc.RpcError", code.name, details or "")
                permit.settle(outcome, retry_after=retry_after, error=error)
        operation, self._operation = self._operation, None  # one call is noted once
        if operation is not None and self._policy.breaker is not None:
            operation.note(CallNote(self.breaker, outcome.value, code.name, retry_after, condition))
        falls_back = outcome is Outcome.FAILURE and self.fallback is not None
        self._end_key(ended, falls_back=falls_back)
        return falls_back

    def watch_by(self, look: Callable[[], object]) -> None:
        """Have `look` called when another call wants the key of this one.

        `look` settles this call if it is over. A caller may see the end of a call, and make the
        next one, before the callbacks that settle the first are called.
        """
        if self._claim is not None:
            self._claim.look = look

    async def reply(self, error: grpc.RpcError) -> Any:
        """Return what the fallback gives in place of `error`, on an asyncio channel.

        Raises:
            Exception: what the fallback raises.
        """
        if self.fallback is None or self._info is None:
            raise error
        return await self.fallback.reply(self._info, self.request, error)

    def reply_sync(self, error: grpc.RpcError) -> Any:
        """Do the same on a sync channel. It may block."""
        if self.fallback is None or self._info is None:
            raise error
        return self.fallback.reply_sync(self._info, self.request, error)

    def answered(self, error: grpc.RpcError) -> None:
        """Take note that the fallback answered in place of `error`; for a stream, perhaps again."""
        self._count_fallback(answered=True)
        if self._claim is not None:
            self._claim.end(KeyEnd.ANSWERED)
        if self._operation is not None and isinstance(error, CircuitOpenError):
            self._operation.note_answered(error.name)

    def declined(self) -> None:
        """Take note that no fallback answers in place of the call's own end; idempotent.

        Call it before the caller can see that end, because another call may take the key then.
        """
        if self._claim is not None and self._claim.if_declined is not None:
            self._claim.end(self._claim.if_declined)

    def keep_original(self, error: grpc.RpcError, reason: Exception) -> None:
        """Leave the caller `error`, because the fallback raised `reason`."""
        self.declined()
        self._count_fallback(answered=False)
        if self._operation is not None and isinstance(error, CircuitOpenError):
            self._operation.note_rejection(error.name)
        if isinstance(reason, FallbackDeclined):
            if reason.metadata:
                add_trailing_metadata(error, reason.metadata)
            return
        if (more := self._policy.failures.more(reason)) is not None:
            logger.error("the fallback of %s failed%s", self._policy.method, more, exc_info=reason)
        chain_cause(error, reason)

    def _count_fallback(self, *, answered: bool) -> None:
        """Count how the fallback ended. A stream that has begun is answered, however it ends."""
        note = getattr(self._policy.breaker, "note_fallback", None)
        if note is not None and not self._fallback_counted:  # not all registries give our breakers
            self._fallback_counted = True
            note(answered=answered)

    def _end_key(self, how: KeyEnd, *, falls_back: bool) -> None:
        """End the key's claim, or hold it while the fallback may still answer."""
        if self._claim is None:
            return
        if falls_back:
            self._claim.if_declined = how
        else:
            self._claim.end(how)

    def _prepare(
        self,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        source: RequestSource,
        *,
        replay: bool,
    ) -> None:
        keys, fallback = self._policy.keys, self._policy.fallback
        falls_back = fallback is not None and fallbacks_allowed()
        if not falls_back and not replay and (keys is None or self._operation is None):
            return
        if metadata is not None and not isinstance(metadata, grpc.aio.Metadata | tuple | list):
            # It may be an iterator, which can be read only once.
            metadata = self.metadata = tuple(metadata)
        try:
            pairs: Pairs = tuple((key, value) for key, value in metadata or ())
        except (TypeError, ValueError):
            return  # it is no metadata, and grpcio reports that
        if keys is not None:
            pairs = self._with_key(keys, pairs, source, falls_back=falls_back)
        if falls_back and fallback is not None:
            info = CallInfo(self._policy.method, self.breaker, pairs, self._timeout, self._began)
            try:
                self._info = fallback.prepare(info)
                pairs = self._info.metadata
                self.fallback = fallback
            except Exception:
                logger.exception("a call to %s goes without its fallback", self._policy.method)
        if replay:
            pairs = marked(pairs)
        if pairs or metadata is not None:
            self.metadata = pairs

    def _with_key(
        self, keys: MethodKeys, pairs: Pairs, source: RequestSource, *, falls_back: bool
    ) -> Pairs:
        """Return the call's metadata with its key, unless the user has given one."""
        given = any(key == IDEMPOTENCY_KEY for key, _ in pairs)
        if source.shape.startswith("unary") and (
            (falls_back and keys.parks) or not (given or keys.sync)
        ):
            # The request that is sent must be the one that the key is made of, even if the user
            # changes the message before it is serialized. On asyncio that happens later, and much
            # later for a parked call.
            self.request = copy_of(self.request)
        if given or (made := self._make_key(keys, source)) is None:
            return pairs
        return (*pairs, (IDEMPOTENCY_KEY, made))

    def _make_key(self, keys: MethodKeys, source: RequestSource) -> str | None:
        """Make the key of this call; None if it gets none of ours."""
        operation = self._operation
        if operation is None:
            return None
        if operation.ended:
            keys.warn_ended()
            return None
        if operation.keys_by_ordinal:
            return operation.next_key(keys.method) if keys.idempotent else None
        if not source.shape.startswith("unary"):
            keys.warn_stream()
            return None
        self._claim = keys.claim(operation, self.request, source.serialize)
        return None if self._claim is None else self._claim.key
