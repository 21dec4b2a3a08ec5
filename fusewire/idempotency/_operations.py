"""The service `Operations`, for both kinds of servers."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from fusewire._validation import Rule, check, check_callable, check_plain_function
from fusewire.errors import SettingsError
from fusewire.idempotency._asking import Action, Asked, answering
from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._core import status_of
from fusewire.idempotency._performing import AioPerforming, Performing
from fusewire.idempotency._records import Answer
from fusewire.idempotency._steps import Given
from fusewire.idempotency.v1.operations_pb2 import Operation
from fusewire.idempotency.v1.operations_pb2_grpc import (
    OperationsServicer,
    add_OperationsServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.idempotency._flow import Flow
    from fusewire.idempotency.v1.operations_pb2 import CancelRequest, QueryRequest

    _Request = QueryRequest | CancelRequest

_ARGUMENTS = ("the call's context", "the action", "the method", "the key")
_STORE = Rule("one of fusewire's stores", lambda value: isinstance(value, SyncStore | AioStore))

# Numbers of grpc.StatusCode, as answers have them.
_INVALID_ARGUMENT = 3
_PERMISSION_DENIED = 7


def add_operations(
    server: grpc.Server | grpc.aio.Server,
    store: SyncStore | AioStore,
    *,
    authorize: Callable[[Any, Action, str, str], bool | Awaitable[bool]],
) -> None:
    """Add the service ``fusewire.idempotency.v1.Operations`` to a server.

    It answers what became of a call, and cancels calls that have not begun, by method and
    idempotency key, for all methods that an interceptor has declared with the same `store`. Where
    that interceptor has a `scope`, it is asked here too, with the context of the call of
    `Operations`: a tenant sees its own keys.

    Args:
        server: the server; for asyncio where the store is.
        store: where the keys are recorded, as the interceptor was given it.
        authorize: whether a caller may do what it asks for, given the call's context, the
            :class:`Action`, the method and the key. A reply may hold what not everybody may read,
            and a cancelled payment is never made: so there is no default. Only ``True`` allows it;
            anything else is PERMISSION_DENIED. For asyncio it may be a coroutine function.

    Raises:
        SettingsError: the store is not one for the server, or `authorize` cannot be called so.
    """
    check("store", store, _STORE)
    other = grpc.Server if isinstance(store, AioStore) else grpc.aio.Server
    if isinstance(server, other):
        raise SettingsError(
            "server and store must be both for asyncio or both not, got "
            f"{type(server).__qualname__} and {type(store).__qualname__}"
        )
    servicer: OperationsServicer
    if isinstance(store, AioStore):
        check_callable("authorize", authorize, *_ARGUMENTS)
        servicer = _AioServicer(store, authorize)
    else:
        check_plain_function("authorize", authorize, *_ARGUMENTS)
        servicer = _Servicer(store, authorize)
    add_OperationsServicer_to_server(servicer, server)


class _Servicer(OperationsServicer):
    """The service on a sync server."""

    def __init__(self, store: SyncStore, authorize: Callable[..., Any]) -> None:
        self._store = store
        self._authorize = authorize

    def Query(self, request: QueryRequest, context: Any) -> Operation:  # noqa: N802 - the name in the .proto
        """Say what became of a call."""
        return self._serve(Action.QUERY, request, context)

    def Cancel(self, request: CancelRequest, context: Any) -> Operation:  # noqa: N802 - the name in the .proto
        """Keep a call from being made."""
        return self._serve(Action.CANCEL, request, context)

    def _serve(self, action: Action, request: _Request, context: Any) -> Operation:
        allowed = self._authorize(context, action, request.method, request.idempotency_key)
        question = _read(self._store, action, request, context, allowed=allowed)
        if isinstance(question, _Question):
            wait = question.flow.terms.wait
            outcome = Performing(self._store, wait).run(answering(*question))
        else:
            outcome = question
        if isinstance(outcome, Operation):
            return outcome
        context.set_trailing_metadata(outcome.answer.trailers)
        context.abort(*status_of(outcome.answer))
        raise AssertionError("abort has not raised")


class _AioServicer(OperationsServicer):
    """The service on an asyncio server."""

    def __init__(self, store: AioStore, authorize: Callable[..., Any]) -> None:
        self._store = store
        self._authorize = authorize
        self._tasks: set[asyncio.Task[Any]] = set()

    async def Query(self, request: QueryRequest, context: Any) -> Operation:  # noqa: N802 - as above
        """Say what became of a call."""
        return await self._serve(Action.QUERY, request, context)

    async def Cancel(self, request: CancelRequest, context: Any) -> Operation:  # noqa: N802 - as above
        """Keep a call from being made."""
        return await self._serve(Action.CANCEL, request, context)

    async def _serve(self, action: Action, request: _Request, context: Any) -> Operation:
        allowed = self._authorize(context, action, request.method, request.idempotency_key)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        question = _read(self._store, action, request, context, allowed=allowed)
        if isinstance(question, _Question):
            wait = question.flow.terms.wait
            # In a task of its own: grpcio cancels this one when the caller goes, and a driver that
            # is interrupted within a statement loses its connection.
            performing = AioPerforming(self._store, wait)
            task = asyncio.create_task(performing.run(answering(*question)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            outcome = await asyncio.shield(task)
        else:
            outcome = question
        if isinstance(outcome, Operation):
            return outcome
        context.set_trailing_metadata(outcome.answer.trailers)
        await context.abort(*status_of(outcome.answer))
        raise AssertionError("abort has not raised")


class _Question(NamedTuple):
    """What is asked for, and the sequence of the method's interceptor."""

    flow: Flow
    asked: Asked


def _read(
    store: SyncStore | AioStore,
    action: Action,
    request: _Request,
    context: Any,
    *,
    allowed: object,
) -> _Question | Given:
    """Return what is asked for, or what it is refused with."""
    method, key = request.method, request.idempotency_key
    if allowed is not True:
        return _refused(_PERMISSION_DENIED, f"this caller may not {action} calls of {method}")
    if not key or not key.isascii() or not key.isprintable():
        return _refused(_INVALID_ARGUMENT, "idempotency_key must be one that metadata can hold")
    if (core := store.core_of(method)) is None:
        # Without a record nothing is known of its calls, and "not found" would be taken for "not
        # made".
        return _refused(
            _INVALID_ARGUMENT, f"{method} is not declared idempotent with the store of this server"
        )
    first_sent_ms = None
    if request.HasField("first_sent_at"):
        first_sent_ms = request.first_sent_at.ToMilliseconds()
    return _Question(core.flow, Asked(action, core.identity(method, key, context), first_sent_ms))


def _refused(code: int, text: str) -> Given:
    return Given(Answer(code, text.encode()), text)
