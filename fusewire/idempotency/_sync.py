"""The interceptor for `grpc.server`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._locks import make_lock
from fusewire.idempotency._contexts import Context
from fusewire.idempotency._core import is_ok, same_shape, status_of
from fusewire.idempotency._decisions import OK
from fusewire.idempotency._performing import Performing
from fusewire.idempotency._replies import remember, serializer
from fusewire.idempotency._steps import Ask, Given, Handle, Raised
from fusewire.idempotency._store import enter, entered_method, leave
from fusewire.idempotency._sweeping import sweep_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.idempotency._base import SyncStore
    from fusewire.idempotency._core import Core
    from fusewire.idempotency._steps import Call, Ending, Outcome, Step
    from fusewire.idempotency._store import Transaction

    _Handler = grpc.RpcMethodHandler[Any, Any]


class Interceptor(grpc.ServerInterceptor):
    """Runs the declared methods of a sync server once for each key."""

    def __init__(self, core: Core, store: SyncStore) -> None:
        self._core = core
        self._store = store
        self._crowd = _Crowd(store.most_calls)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wrap the handler of a declared method; leave others as they are."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._core.methods:
            return handler
        serialize, behavior = handler.response_serializer, handler.unary_unary
        if behavior is None:
            return self._on_stream(method, handler)
        served = _Served(self._core, self._store, method, behavior, serialize, crowd=self._crowd)
        return grpc.unary_unary_rpc_method_handler(
            served, handler.request_deserializer, serializer(serialize)
        )

    def _on_stream(self, method: str, handler: _Handler) -> _Handler:
        if not self._core.methods.names(method):
            return handler
        text = self._core.stream_refusal(method)

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

        return same_shape(handler, refuse)


class _Crowd:
    """Counts the calls that have, or wait for, one of the connections of the store's pool.

    Args:
        most: how many can have one at a time; None for any number.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._lock = make_lock()
        self._calls = 0

    def __enter__(self) -> bool:
        """Return whether the call has to wait for another one's."""
        with self._lock:
            self._calls += 1
            return self.most is not None and self._calls > self.most

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1


class _Served:
    """A declared method, as grpcio calls it."""

    def __init__(
        self,
        core: Core,
        store: SyncStore,
        method: str,
        behavior: Callable[[Any, Any], Any],
        serialize: Callable[[Any], bytes] | None,
        *,
        crowd: _Crowd,
    ) -> None:
        self.core = core
        self._crowd = crowd
        self.store = store
        self._method = method
        self._behavior = behavior
        self._serialize = serialize

    def __call__(self, request: Any, real: grpc.ServicerContext) -> Any:
        if entered_method() == self._method:
            real.abort(grpc.StatusCode.INTERNAL, self.core.twice_refusal(self._method))
        call = self.core.read(self._method, request, real)
        context = Context(real)
        outcome: Outcome
        if isinstance(call, Given):
            outcome = call
        else:
            with self._crowd as waits:
                if waits:
                    self.core.warn_of_waiting(self._crowd.most)
                outcome = _Serving(self, call, request, context).run(self.core.steps(call))
        if self.core.sweep_due.now():
            # In a thread of its own, because this one has a caller that waits.
            threading.Thread(target=self._sweep, name="fusewire-sweep", daemon=True).start()
        return self._give(outcome, context, real)

    def _give(self, outcome: Outcome, context: Context, real: grpc.ServicerContext) -> Any:
        """End the call as was decided: the transaction, if there was one, has ended."""
        if isinstance(outcome, Given):
            answer = outcome.answer
            real.set_trailing_metadata(answer.trailers)
            code, details = status_of(answer)
            if answer.code != OK:
                real.abort(code, details)
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
            real.abort(*context.abortion)
        if outcome.answer.reply is not None:
            remember(outcome.reply, outcome.answer.reply)
        return outcome.reply

    def _sweep(self) -> None:
        try:
            sweep_batches(self.store)
        except Exception as error:  # noqa: BLE001 - any driver's; the next sweep tries again
            self.core.flow.log_failure(self._method, "sweeping expired keys failed", error)

    def handle(self, request: Any, context: Context, transaction: Transaction | None) -> Ending:
        """Run the handler in a transaction, or outside of any."""
        entering = enter(
            self._method, self.store, None if transaction is None else transaction.lend()
        )
        try:
            try:
                reply = self._behavior(request, context)
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
                transaction.settle()
            except Exception as error:  # noqa: BLE001 - the handler's work could not be sent
                return Raised(error)
        return ending

    def ask(
        self, function: Callable[..., Any], call: Call, request: Any, context: Context
    ) -> Ending | None:
        """Ask the user's function about work that is in doubt."""
        try:
            reply = function(call.key, request, context)
        except Exception as error:  # noqa: BLE001 - as a handler's
            return self.core.raised(error, context)
        return None if reply is None else self.returned(reply, context)

    def returned(self, reply: Any, context: Context) -> Ending:
        return self.core.returned(self._method, reply, context, self._serialize)


class _Serving(Performing):
    """Performs the steps of one call."""

    def __init__(self, served: _Served, call: Call, request: Any, context: Context) -> None:
        super().__init__(served.store, served.core.flow.terms.wait)
        self._served = served
        self._call = call
        self._request = request
        self._context = context

    def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        if isinstance(step, Handle):
            return self._served.handle(self._request, self._context, self.transaction)
        if isinstance(step, Ask):
            return self._served.ask(step.function, self._call, self._request, self._context)
        return super().perform(step)
