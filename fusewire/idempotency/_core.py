"""What the sync and the asyncio interceptor share: reading calls, and what their ends mean."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._log_fields import fields
from fusewire._validation import Rule, check, name_of
from fusewire.idempotency._contexts import STATUS_CODES
from fusewire.idempotency._decisions import OK, Effects
from fusewire.idempotency._fingerprint import UndigestedError, fingerprint_of
from fusewire.idempotency._records import Answer, Identity, stored_key
from fusewire.idempotency._refusals import INTERNAL, Reason, refusal
from fusewire.idempotency._replies import Replies
from fusewire.idempotency._requests import FAILED, MADE, REFUSED, WITHOUT_KEY
from fusewire.idempotency._steps import Answered, Call, Ending, Given, Raised
from fusewire.idempotency._sweeping import Due
from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.idempotency._contexts import Noted
    from fusewire.idempotency._flow import Flow
    from fusewire.idempotency._methods import Methods
    from fusewire.idempotency._requests import RequestCounts
    from fusewire.idempotency._steps import Outcome, Steps
    from fusewire.idempotency._store import Entered

    _Handler = grpc.RpcMethodHandler[Any, Any]

_SCOPE = Rule("a string without NUL", lambda value: isinstance(value, str) and "\0" not in value)

logger = logging.getLogger("fusewire.idempotency")


class Core:
    """One interceptor's methods, and what was agreed for them.

    Args:
        methods: the declared methods.
        flow: the sequence.
        required: whether a call must have a key.
        scope: returns whose key it is, given the call's context; None if all have one owner.
        sweep: seconds between sweeps; None for none.
        requests: counts what becomes of calls.

    Attributes:
        sweep_due: whether it is time to sweep.
    """

    def __init__(
        self,
        methods: Methods,
        flow: Flow,
        *,
        required: bool,
        scope: Callable[[Any], str] | None,
        sweep: float | None,
        requests: RequestCounts,
    ) -> None:
        self.sweep_due = Due(sweep)
        self.methods = methods
        self.flow = flow
        self.replies = Replies()
        self._required = required
        self._scope = scope
        self._requests = requests
        self._warned: set[tuple[float | str, ...]] = set()

    def read(self, method: str, request: Any, context: Any) -> Call | Given:
        """Return what there is to know about a call, or what it is refused with."""
        read = self._read(method, request, context)
        if isinstance(read, Given):
            self._requests.count(method, read.result)
        return read

    def steps(self, call: Call) -> Steps:
        """Return the steps of a call. It is counted at their end, whether or not somebody waits."""
        result = FAILED
        try:
            outcome = yield from self.flow.steps(call)
            result = self._result(call, outcome)
        finally:
            self._requests.count(call.method, result)
        return outcome

    def _result(self, call: Call, outcome: Outcome) -> str:
        if isinstance(outcome, Given):
            return outcome.result
        if call.identity is None:
            return WITHOUT_KEY
        if is_ok(outcome):
            return MADE
        final = isinstance(outcome, Answered) and outcome.answer.code in self.flow.terms.final
        return REFUSED if final else FAILED

    def _read(self, method: str, request: Any, context: Any) -> Call | Given:
        key, first_sent_ms = _read_metadata(context.invocation_metadata())
        if key is None:
            if self._required:
                return Given(refusal(Reason.KEY_MISSING), str(Reason.KEY_MISSING))
            return Call(method, None, None, b"", None)
        identity = self.identity(method, key, context)
        try:
            fingerprint = fingerprint_of(request)
        except UndigestedError as error:
            text = f"{method} is declared idempotent, and {error}"
            self._refuse(method, text)
            return Given(Answer(INTERNAL, text.encode()), "undigested")
        return Call(method, key, identity, fingerprint, first_sent_ms)

    def identity(self, method: str, key: str, context: Any) -> Identity:
        """Return the identity of the work of a key that a caller names.

        Raises:
            SettingsError: the user's `scope` has returned what is none.
        """
        scope = ""
        if self._scope is not None:
            scope = check("what scope returns", self._scope(context), _SCOPE)
        return Identity(scope, method, stored_key(key))

    def returned(
        self,
        method: str,
        reply: Any,
        context: Noted,
        serialize: Callable[[Any], bytes] | None,
    ) -> Ending:
        """Return how a handler has ended that returned."""
        if context.abortion is not None:
            return self._aborted(context)
        details, trailers = context.noted_details, context.noted_trailers
        if (code := context.noted_code) != OK:
            return Answered(Answer(code, details, trailers), reply)
        data = self.replies.to_bytes(method, reply, serialize)
        if data is None:
            # What grpcio says of it, but before the commit.
            context.note_abort(grpc.StatusCode.INTERNAL, "Failed to serialize response!")
            return self._aborted(context)
        return Answered(Answer(code, details, trailers, data), reply)

    def raised(self, error: Exception, context: Noted) -> Ending:
        """Return how a handler has ended that raised an exception."""
        if context.abortion is not None:
            return self._aborted(context)
        return Raised(error)

    def _aborted(self, context: Noted) -> Ending:
        return Answered(Answer(context.noted_code, context.noted_details, context.noted_trailers))

    def warn_if_unasked(self, entered: Entered, ending: Ending) -> None:
        """Warn once of a handler that has succeeded without asking for its transaction."""
        if is_ok(ending) and not entered.asked and self.flow.terms.effects is Effects.TRANSACTION:
            self._warn(
                fields("idempotency.not_joined", method=entered.method),
                "%s: its handler has not asked for the store's current transaction, so its effects "
                "are not committed together with the key. Work with store.current(), or declare "
                "the method with effects='elsewhere'",
                entered.method,
            )

    def warn_of_waiting(self, most: int | None) -> None:
        """Warn once of a call that waits for a connection of the pool."""
        self._warn(
            fields("idempotency.pool_too_small"),
            "more calls of declared methods are running than the %s connections of the store's "
            "pool, so they wait for one another: make the pool as large as the server has threads, "
            "and give `idempotent` their number as threads=",
            most,
        )

    def _refuse(self, method: str, text: str) -> str:
        self._warn(fields("idempotency.refused", method=method), "%s", text)
        return text

    def _warn(self, extra: dict[str, float | str], text: str, *arguments: object) -> None:
        """Log a warning once for each event and method."""
        once = tuple(extra.values())
        if once not in self._warned:
            self._warned.add(once)
            logger.warning(text, *arguments, extra=extra)

    def stream_refusal(self, method: str) -> str:
        """Warn once of a declared method that is a stream, and return what its calls get."""
        text = (
            f"{method} is declared idempotent and is a stream, whose messages are neither claimed "
            "nor stored: take it out of the declared methods"
        )
        return self._refuse(method, text)

    def twice_refusal(self, method: str) -> str:
        """Warn once of a method that two interceptors declare, and return what its calls get."""
        text = (
            f"{method} is declared idempotent by two interceptors of this server, and the second "
            "would wait for the first: take it out of one of them"
        )
        return self._refuse(method, text)

    def plain_refusal(self, method: str, handler: object) -> str:
        """Warn once of a plain function on an asyncio server, and return what its calls get."""
        text = (
            f"{method} is declared idempotent, and its handler {name_of(handler)} is no coroutine "
            "function: grpcio would run it in a thread, which has no part in the transaction. "
            "Write it as `async def`"
        )
        return self._refuse(method, text)


def is_ok(ending: Ending) -> bool:
    """Return whether a handler has succeeded."""
    return isinstance(ending, Answered) and ending.answer.code == OK


def status_of(answer: Answer) -> tuple[grpc.StatusCode, str]:
    """Return the status and the text of an answer, as `abort` takes them."""
    code = STATUS_CODES.get(answer.code, grpc.StatusCode.UNKNOWN)
    return code, answer.details.decode(errors="surrogatepass")


def same_shape(
    handler: grpc.RpcMethodHandler[Any, Any], behavior: Callable[[Any, Any], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of the streams that another one has, with another behavior."""
    make: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return make[bool(handler.request_streaming), bool(handler.response_streaming)](
        behavior, handler.request_deserializer, handler.response_serializer
    )


def _read_metadata(metadata: Any) -> tuple[str | None, int | None]:
    key: str | None = None
    first_sent_ms: int | None = None
    for name, value in metadata or ():
        if name == IDEMPOTENCY_KEY and value and key is None:
            key = value if isinstance(value, str) else value.decode("latin-1")
        elif name == FIRST_SENT_METADATA and isinstance(value, str) and value.isdecimal():
            first_sent_ms = int(value[:18])
    return key, first_sent_ms
