"""The fallback that stores a call instead of failing it."""

from __future__ import annotations

import inspect
import time
import uuid
from typing import TYPE_CHECKING, Any

from fusewire._sendable import is_valid_metadata
from fusewire._validation import invalid
from fusewire.errors import CircuitOpenError, FusewireError, UnconfirmedError
from fusewire.forwarding._call import call_to_store
from fusewire.forwarding._store import Entry
from fusewire.interceptors import CallInfo, FallbackDeclined, check_reply
from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY, current_operation

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from fusewire.forwarding._limits import Limits
    from fusewire.forwarding._park_log import ParkLog
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.forwarding._store import CallStore
    from fusewire.interceptors import Shape

OPERATION_ID_METADATA = "fusewire-operation-id"
"""Trailing metadata of a call that could not be parked: its operation id, to ask again with."""

PARKED_METADATA = "fusewire-parked"
"""Trailing metadata of the same: ``no``, ``unknown`` or ``yes``.

Unknown: no confirmation came. Yes: it is parked, and the function that makes the reply failed."""

_LONGEST_KEY = 4096
_MS_DIGITS = 15  # of milliseconds since 1970, until the year 33658


class ParkFallback:
    """Parks a unary call that the circuit rejected or, if it is idempotent, that failed.

    Attributes:
        parks: shows the interceptors that a call's first attempt carries the key of later ones.

    Args:
        store: where it parks them.
        log: the log of calls that were not parked.
        limits: how much may be queued.
        policy: what may be parked, and how.

    Raises:
        SettingsError: the policy has no `reply`.
    """

    parks = True

    def __init__(
        self,
        store: CallStore,
        log: ParkLog,
        limits: Limits,
        policy: ParkPolicy,
    ) -> None:
        if policy.reply is None:
            raise invalid("reply", "a function that takes a request and its receipt", None)
        self._store = store
        self._log = log
        self._limits = limits
        self._policy = policy
        self._reply = policy.reply

    @property
    def serializer(self) -> Callable[[Any], bytes] | None:
        """What makes bytes of a request that is no protobuf message, if it was given."""
        return self._policy.serializer

    def unfit(self, *, sync: bool, shape: Shape | None) -> str | None:
        """Return why it cannot park calls of a shape, None if it can."""
        if shape not in {None, "unary_unary"}:
            kind = "requests" if shape == "stream_unary" else "responses"
            return (
                f"the method has a stream of {kind}, and only calls with one request and one "
                "response can be parked; give it another fallback, or None"
            )
        called = type(self._reply).__call__
        if sync and (
            inspect.iscoroutinefunction(self._reply) or inspect.iscoroutinefunction(called)
        ):
            return (
                f"reply={self._reply!r} is a coroutine function, which a sync channel cannot run; "
                "give park() a plain function"
            )
        return None

    def leaves_probe(self, breaker: str, generation: int) -> bool:
        """Return whether a call is parked at once instead of being a probe of its circuit."""
        return self._store.probes.is_left(breaker, generation)

    def prepare(self, call: CallInfo) -> CallInfo:
        """Give the call its operation id, so that the first attempt carries it already."""
        for key, value in call.metadata:
            if key == IDEMPOTENCY_KEY:
                check_key(value)
                return call
        operation = current_operation()
        if operation is not None and operation.keys_by_ordinal:
            made = operation.next_key(call.method)
        else:
            made = uuid.uuid4().hex  # no operation, or a request that no key can be made of
        metadata = (*call.metadata, (IDEMPOTENCY_KEY, made))
        return CallInfo(call.method, call.breaker, metadata, call.timeout, call.began)

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Park the call and make the reply, on an asyncio channel."""
        operation_id = self._to_park(call, error)
        try:
            receipt = await self._store.store(self._entry(operation_id, call, request, error))
        except FusewireError as failed:
            raise self._not_parked(operation_id, failed) from failed
        try:
            made = self._reply(request, receipt)
            made = await made if inspect.isawaitable(made) else made
            check_reply(call.method, made)
        except Exception as failed:
            raise self._unanswered(operation_id, failed) from failed
        return made

    def reply_sync(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Park the call and make the reply, on a sync channel."""
        operation_id = self._to_park(call, error)
        try:
            receipt = self._store.store_threadsafe(self._entry(operation_id, call, request, error))
        except FusewireError as failed:
            raise self._not_parked(operation_id, failed) from failed
        try:
            made = self._reply(request, receipt)
            if inspect.iscoroutine(made):
                made.close()
                raise TypeError("reply returned a coroutine, which a sync channel cannot run")  # noqa: TRY301 - answered like any failure of the user's function
            check_reply(call.method, made)
        except Exception as failed:
            raise self._unanswered(operation_id, failed) from failed
        return made

    def _to_park(self, call: CallInfo, error: grpc.RpcError) -> str:
        """Return the operation id of a call that is to be parked.

        Raises:
            FallbackDeclined: it is not to be parked.
        """
        operation_id = _operation_id(call)
        if not isinstance(error, CircuitOpenError) and not self._policy.idempotent:
            # Only a rejection by our own circuit proves that nothing was sent: with a retry policy,
            # even a call that ended with "connection refused" has been seen to take effect.
            raise _declined(operation_id, "no", "it may have taken effect, and is at most once")
        return operation_id

    def _entry(
        self, operation_id: str, call: CallInfo, request: Any, error: grpc.RpcError
    ) -> Entry:
        """Return what to store.

        Raises:
            FusewireError: it cannot be stored, or could not be sent later.
        """
        policy = self._policy
        self._limits.check(policy, request, call.breaker)
        if not is_valid_metadata(call.metadata):
            # A rejected call never reached grpcio, which would have refused its metadata.
            raise FusewireError("its metadata cannot be sent")
        stored = tuple(pair for pair in call.metadata if pair[0].lower() in policy.metadata)
        to_store = call_to_store(
            policy,
            call.method,
            request,
            operation_id=operation_id,
            metadata=stored,
            timeout=call.timeout,
        )
        return Entry(
            to_store,
            call.breaker,
            "circuit_open" if isinstance(error, CircuitOpenError) else "failed",
            expires_after=policy.expires_after,
            first_sent=_first_sent(call, error),
        )

    def _not_parked(self, operation_id: str, failed: FusewireError) -> FallbackDeclined:
        parked = "unknown" if isinstance(failed, UnconfirmedError) else "no"
        self._log.not_parked(operation_id, parked, failed)
        return _declined(operation_id, parked, str(failed))

    def _unanswered(self, operation_id: str, failed: Exception) -> FallbackDeclined:
        self._log.unanswered(operation_id, failed)
        return _declined(operation_id, "yes", f"its reply failed: {failed!r}")


def _operation_id(call: CallInfo) -> str:
    for key, value in call.metadata:
        if key == IDEMPOTENCY_KEY:
            return str(value)
    # prepare() has added one; a fallback within a fallback might have removed it.
    return uuid.uuid4().hex


def check_key(value: str | bytes) -> None:
    """Refuse an operation id that cannot be sent as a key.

    Raises:
        SettingsError: it is empty, too long, or no printable ASCII.
    """
    # Parked with it, the call could never be sent: gRPC's metadata is printable ASCII, and a server
    # takes 8 KiB of it.
    if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
        raise invalid(IDEMPOTENCY_KEY, "printable ASCII", value)
    if len(value) > _LONGEST_KEY:
        raise invalid(IDEMPOTENCY_KEY, f"at most {_LONGEST_KEY} characters long", value)


def _first_sent(call: CallInfo, error: grpc.RpcError) -> float | None:
    """Return when a call that is parked was first sent, in seconds since 1970; None if it was not.

    A caller that asks again may say by metadata when it first asked.
    """
    times = [int(v) / 1000 for k, v in call.metadata if k == FIRST_SENT_METADATA and _is_ms(v)]
    if not isinstance(error, CircuitOpenError):
        began = time.monotonic() if call.began is None else call.began
        times.append(time.time() - (time.monotonic() - began))
    return min(times, default=None)


def _is_ms(value: str | bytes) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) <= _MS_DIGITS


def _declined(operation_id: str, parked: str, why: str) -> FallbackDeclined:
    return FallbackDeclined(
        f"operation {operation_id} is not parked: {why}",
        metadata=((OPERATION_ID_METADATA, operation_id), (PARKED_METADATA, parked)),
    )
