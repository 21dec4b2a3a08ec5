"""The fallback that stores a call instead of failing it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import uuid
from typing import TYPE_CHECKING, Any

from fusewire._error_types import error_type
from fusewire._sendable import LONGEST_TIMEOUT, is_valid_metadata
from fusewire._validation import SECONDS, check, check_callable, invalid
from fusewire.errors import (
    CircuitOpenError,
    FusewireError,
    SettingsError,
    UnconfirmedError,
)
from fusewire.forwarding._call import StoredCall
from fusewire.interceptors import FallbackDeclined, check_reply
from fusewire.operation import IDEMPOTENCY_KEY, current_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import grpc

    from fusewire.forwarding._call import Receipt
    from fusewire.forwarding._park_log import ParkLog
    from fusewire.forwarding._store import CallStore
    from fusewire.interceptors import CallInfo, Shape

OPERATION_ID_METADATA = "fusewire-operation-id"
"""Trailing metadata of a call that could not be parked: its operation id, to ask again with."""

PARKED_METADATA = "fusewire-parked"
"""Trailing metadata of the same: ``no``, ``unknown`` or ``yes``.

Unknown: no confirmation came. Yes: it is parked, and the function that makes the reply failed."""

_LONGEST_KEY = 4096
_MAX_REQUEST = 4 * 1024 * 1024  # bytes; gRPC's own default limit of a received message


class ParkFallback:
    """Parks a unary call that the circuit rejected or, if it is idempotent, that failed.

    Attributes:
        parks: shows the interceptors that a call's first attempt carries the key of later ones.
        serializer: what makes bytes of a request that is no protobuf message, if it was given.
    """

    parks = True

    def __init__(
        self,
        store: CallStore,
        log: ParkLog,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: bool,
        at_most_once: bool,
        metadata: Collection[str],
        expires_after: float | None,
        serializer: Callable[[Any], bytes] | None,
    ) -> None:
        if bool(idempotent) == bool(at_most_once):
            raise SettingsError(
                "park() must be given one of idempotent=True, if the server honors the operation "
                f"id in its {IDEMPOTENCY_KEY!r} metadata, and at_most_once=True, if it does not, "
                f"got {'both' if idempotent else 'neither'}"
            )
        # The one function that may be a class: its work is to make an object.
        makes = functools.partial(reply) if isinstance(reply, type) else reply
        check_callable("reply", makes, "a request", "its receipt")
        check("expires_after", expires_after, SECONDS.or_none)
        self._store = store
        self._log = log
        self._reply = reply
        self._idempotent = idempotent
        self._allowed = _allowed(metadata)
        self._expires_after = expires_after
        self.serializer = serializer
        self._serialize = serializer or _serialize

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
                _check_key(value)
                return call
        operation = current_operation()
        if operation is not None and operation.keys_by_ordinal:
            made = operation.next_key(call.method)
        else:
            made = uuid.uuid4().hex  # no operation, or a request that no key can be made of
        return dataclasses.replace(call, metadata=(*call.metadata, (IDEMPOTENCY_KEY, made)))

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Park the call and make the reply, on an asyncio channel."""
        operation_id = self._to_park(call, error)
        try:
            receipt = await self._store.store(
                self._stored_call(operation_id, call, request),
                breaker=call.breaker,
                expires_after=self._expires_after,
            )
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
            receipt = self._store.store_threadsafe(
                self._stored_call(operation_id, call, request),
                breaker=call.breaker,
                expires_after=self._expires_after,
            )
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
        if not isinstance(error, CircuitOpenError) and not self._idempotent:
            # Only a rejection by our own circuit proves that nothing was sent: with a retry policy,
            # even a call that ended with "connection refused" has been seen to take effect.
            raise _declined(operation_id, "no", "it may have taken effect, and is at most once")
        return operation_id

    def _stored_call(self, operation_id: str, call: CallInfo, request: Any) -> StoredCall:
        """Return what to store.

        Raises:
            FusewireError: it cannot be stored, or could not be sent later.
        """
        try:
            body = self._serialize(request)
        except Exception as failed:
            kind = error_type(type(failed))  # and not its text, which may quote the request
            raise FusewireError(f"its request cannot be serialized: {kind}") from failed
        if len(body) > _MAX_REQUEST:
            raise FusewireError(
                f"its request must have at most {_MAX_REQUEST} bytes, got {len(body)}"
            )
        if not is_valid_metadata(call.metadata):
            # A rejected call never reached grpcio, which would have refused its metadata.
            raise FusewireError("its metadata cannot be sent")
        return StoredCall(
            operation_id=operation_id,
            method=call.method,
            request=body,
            metadata=tuple(pair for pair in call.metadata if pair[0].lower() in self._allowed),
            timeout=_later_timeout(call.timeout),
            at_most_once=not self._idempotent,
        )

    def _not_parked(self, operation_id: str, failed: FusewireError) -> FallbackDeclined:
        parked = "unknown" if isinstance(failed, UnconfirmedError) else "no"
        self._log.not_parked(operation_id, parked, failed)
        return _declined(operation_id, parked, str(failed))

    def _unanswered(self, operation_id: str, failed: Exception) -> FallbackDeclined:
        self._log.unanswered(operation_id, failed)
        return _declined(operation_id, "yes", f"its reply failed: {failed!r}")


def _allowed(keys: Collection[str]) -> frozenset[str]:
    if isinstance(keys, str):
        raise invalid("metadata", "a list of keys", keys, f"write [{keys!r}]")
    allowed = frozenset(key.lower() for key in keys)
    for key in allowed:
        if key in _CREDENTIALS or key.startswith("grpc-"):
            raise invalid(
                "each key in metadata",
                "one that may be stored",
                key,
                "credentials come fresh from the channel when the call is replayed, and grpc- is "
                "gRPC's own",
            )
    return allowed - {IDEMPOTENCY_KEY}


_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})


def _operation_id(call: CallInfo) -> str:
    for key, value in call.metadata:
        if key == IDEMPOTENCY_KEY:
            return str(value)
    # prepare() has added one; a fallback within a fallback might have removed it.
    return uuid.uuid4().hex


def _check_key(value: str | bytes) -> None:
    # Parked with it, the call could never be sent: gRPC's metadata is printable ASCII, and a server
    # takes 8 KiB of it.
    if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
        raise invalid(IDEMPOTENCY_KEY, "printable ASCII", value)
    if len(value) > _LONGEST_KEY:
        raise invalid(IDEMPOTENCY_KEY, f"at most {_LONGEST_KEY} characters long", value)


def _later_timeout(timeout: float | None) -> float | None:
    """Return the timeout of a later attempt; None if the call's own is over, or says nothing."""
    return timeout if timeout is not None and 0 < timeout < LONGEST_TIMEOUT else None


def _serialize(request: Any) -> bytes:
    if isinstance(request, bytes):
        return request
    serialize = getattr(request, "SerializeToString", None)
    if serialize is None:
        raise TypeError(f"{type(request).__name__} is no protobuf message: give park(serializer=…)")
    return bytes(serialize())


def _declined(operation_id: str, parked: str, why: str) -> FallbackDeclined:
    return FallbackDeclined(
        f"operation {operation_id} is not parked: {why}",
        metadata=((OPERATION_ID_METADATA, operation_id), (PARKED_METADATA, parked)),
    )
