"""The interceptor for `grpc.aio.server`.

grpcio cancels a handler's task when its caller's deadline passes, when the caller cancels, and when
the server stops. A handler that is slower than its caller would never end, whatever the number of
calls. So each call's sequence runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._log_fields import fields
from fusewire._validation import is_coroutine_function
from fusewire.idempotency._contexts import AioContext
from fusewire.idempotency._core import is_ok, same_shape, status_of
from fusewire.idempotency._decisions import OK
from fusewire.idempotency._performing import AioPerforming
from fusewire.idempotency._replies import remember, serializer
from fusewire.idempotency._steps import Ask, Given, Handle, Raised
from fusewire.idempotency._store import enter, entered_method, leave
from fusewire.idempotency._sweeping import aio_sweep_batches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.idempotency._base import AioStore
    from fusewire.idempotency._core import Core
    from fusewire.idempotency._steps import Call, Ending, Outcome, Step
    from fusewire.idempotency._store import AioTransaction

    _Handler = grpc.RpcMethodHandler[Any, Any]


logger = logging.getLogger("fusewire.idempotency")


class AioInterceptor(grpc.aio.ServerInterceptor):
    """Runs the declared methods of an asyncio server once for each key."""

    def __init__(self, core: Core, store: AioStore) -> None:
        self._core = core
        self._store = store
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait until the handlers have ended that have outlived their calls.

        Call it after ``server.stop()``, and before the store's pool is closed.
        """
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wrap the handler of a declared method; leave others as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._core.methods:
            return handler
        serialize, behavior = handler.response_serializer, handler.unary_unary
        if behavior is None:
            return self._on_stream(method, handler)
        if not is_coroutine_function(behavior):
            refuse = _refusing(grpc.StatusCode.INTERNAL, self._core.plain_refusal(method, behavior))
            return grpc.unary_unary_rpc_method_handler(
                refuse, handler.request_deserializer, serialize
            )
        served = _Served(
            self._core, self._store, method, behavior, serialize=serialize, tasks=self._tasks
        )
        # A method of it: grpcio does not take an object for a coroutine function.
        return grpc.unary_unary_rpc_method_handler(
            served.serve, handler.request_deserializer, serializer(serialize)
        )

    def _on_stream(self, method: str, handler: _Handler) -> _Handler:
        if not self._core.methods.names(method):
            return handler
        text = self._core.stream_refusal(method)
        return same_shape(handler, _refusing(grpc.StatusCode.UNIMPLEMENTED, text))


class _Served:
    """A declared method, as grpcio calls it."""

    def __init__(
        self,
        core: Core,
        store: AioStore,
        method: str,
        behavior: Callable[[Any, Any], Any],
        *,
        serialize: Callable[[Any], bytes] | None,
        tasks: set[asyncio.Task[Any]],
    ) -> None:
        self.core = core
        self.store = store
        self._tasks = tasks
        self._method = method
        self._behavior = behavior
        self._serialize = serialize

    async def serve(self, request: Any, real: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Serve a call."""
        if entered_method() == self._method:
            await real.abort(grpc.StatusCode.INTERNAL, self.core.twice_refusal(self._method))
        call = self.core.read(self._method, request, real)
        context = AioContext(real)
        if isinstance(call, Given):
            return await self._give(call, context, real)
        serving = _Serving(self, call, request, context)
        task = asyncio.create_task(serving.run(self.core.steps(call)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.core.sweep_due.now():
            sweeping = asyncio.create_task(self._sweep())
            self._tasks.add(sweeping)
            sweeping.add_done_callback(self._tasks.discard)
        try:
            outcome = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_abandoned)
            raise
        return await self._give(outcome, context, real)

    def _log_abandoned(self, task: asyncio.Task[Outcome]) -> None:
        """Log the failure of a handler that has no caller any more: nobody else reports it."""
        if task.cancelled():
            return
        error = task.exception()
        if error is None and isinstance(outcome := task.result(), Raised):
            error = outcome.error
        if error is not None:
            logger.error(
                "%s: its handler failed when its caller had gone: %s",
                self._method,
                error,
                exc_info=error,
                extra=fields("idempotency.abandoned", method=self._method),
            )

    async def _give(
        self, outcome: Outcome, context: AioContext, real: grpc.aio.ServicerContext[Any, Any]
    ) -> Any:
        """End the call as was decided: the transaction, if there was one, has ended."""
        if isinstance(outcome, Given):
            answer = outcome.answer
            real.set_trailing_metadata(answer.trailers)
            code, details = status_of(answer)
            if answer.code != OK:
                await real.abort(code, details)
            if context.noted_code != OK:  # what the handler has said meanwhile does not count
                real.set_code(code)
                real.set_details(details)
            data = answer.reply or b""
            reply = self.core.replies.from_bytes(self._method, data, self._serialize)
            remember(reply, data)
            return reply
        if isinstance(outcome, Raised):
            raise outcome.error
        if context.abortion is not None:
            await real.abort(*context.abortion)
        if outcome.answer.reply is not None:
            remember(outcome.reply, outcome.answer.reply)
        return outcome.reply

    async def _sweep(self) -> None:
        try:
            await aio_sweep_batches(self.store)
        except Exception as error:  # noqa: BLE001 - any driver's; the next sweep tries again
            self.core.flow.log_failure(self._method, "sweeping expired keys failed", error)

    async def handle(
        self, request: Any, context: AioContext, transaction: AioTransaction | None
    ) -> Ending:
        """Run the handler in a transaction, or outside of any."""
        entering = enter(
            self._method, self.store, None if transaction is None else transaction.lend()
        )
        try:
            try:
                reply = await self._behavior(request, context)
            except Exception as error:  # noqa: BLE001 - grpcio's own rule
                ending = self.core.raised(error, context)
            else:
                ending = self.returned(reply, context)
            self.core.warn_if_unasked(entering.entered, ending)
        finally:
            leave(entering)
        if transaction is None or isinstance(ending, Raised):
            return ending
        if not transaction.is_open:
            return ending._replace(is_open=False)
        if is_ok(ending):
            try:
                await transaction.settle()
            except Exception as error:  # noqa: BLE001 - the handler's work could not be sent
                return Raised(error)
        return ending

    async def ask(
        self, function: Callable[..., Any], call: Call, request: Any, context: AioContext
    ) -> Ending | None:
        """Ask the user's function about work that is in doubt."""
        try:
            reply = await function(call.key, request, context)
        except Exception as error:  # noqa: BLE001 - as a handler's
            return self.core.raised(error, context)
        return None if reply is None else self.returned(reply, context)

    def returned(self, reply: Any, context: AioContext) -> Ending:
        return self.core.returned(self._method, reply, context, self._serialize)


def _refusing(code: grpc.StatusCode, text: str) -> Callable[[Any, Any], Awaitable[Any]]:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await context.abort(code, text)

    return refuse


class _Serving(AioPerforming):
    """Performs the steps of one call."""

    def __init__(self, served: _Served, call: Call, request: Any, context: AioContext) -> None:
        super().__init__(served.store, served.core.flow.terms.wait)
        self._served = served
        self._call = call
        self._request = request
        self._context = context

    async def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        if isinstance(step, Handle):
            return await self._served.handle(self._request, self._context, self.transaction)
        if isinstance(step, Ask):
            return await self._served.ask(step.function, self._call, self._request, self._context)
        return await super().perform(step)
