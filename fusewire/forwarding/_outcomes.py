"""Outcomes of calls: what is said when a call is settled, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusewire._validation import (
    check,
    check_callable,
    instance_of,
    is_coroutine_function,
    name_of,
)
from fusewire.errors import FusewireError, MoveRefusedError
from fusewire.forwarding._call import UnreadableCallError, asks_for_outcome
from fusewire.forwarding._encryption import MissingKeyError
from fusewire.forwarding._handle import ForwarderHandle
from fusewire.forwarding._methods import request_class, response_class
from fusewire.forwarding._outcome_kinds import Outcome, OutcomeKind
from fusewire.forwarding._outcome_messages import (
    Ended,
    UnreadableOutcomeError,
    outcome_message,
    read_outcome,
)
from fusewire.parking import ParkingConsumer, Reject, ReplayPolicy, RetryPolicy
from fusewire.parking.internal import Done, Reply, Requeue, keep_no_texts, queues_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Message
    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.forwarding._entering import BrokerEntry
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.parking.internal import Dead, InFlight


def replies_queue(queue: str) -> str:
    """Return the queue of the outcomes of a queue's calls. Stored: it stays as it is."""
    return f"{queue}.replies"


class CallReplies:
    """Says what became of calls.

    Args:
        queue: the queue of the calls.
        codec: encrypts it, if calls are encrypted.
        always: whether it says so of all calls, and not only of those that ask for it.
    """

    def __init__(self, queue: str, codec: CallCodec, *, always: bool) -> None:
        self._queue = replies_queue(queue)
        self._codec = codec
        self._always = always

    def of(self, item: InFlight, verdict: Done | Dead) -> Reply | None:
        """Return the outcome of a call that is about to be settled; None if nobody wants it."""
        message = item.delivery.message
        if not (self._always or asks_for_outcome(message.headers)):
            return None
        operation_id = item.history.operation_id
        reason = "ok" if isinstance(verdict, Done) else verdict.history.reason
        kind = OutcomeKind(reason) if reason in _KINDS else OutcomeKind.REJECTED
        ended = item.view.answer if isinstance(item.view.answer, Ended) else Ended()
        return Reply(self._queue, self._carried(operation_id, message, kind, ended), kind.final)

    def of_removed(self, copies: Sequence[Message]) -> tuple[str, Message] | None:
        """Return where the outcome goes of a call that is removed, and it; None if nobody wants it.

        Args:
            copies: the messages that store the call.
        """
        for message in copies:
            if self._always or asks_for_outcome(message.headers):
                operation_id = message.message_id or ""
                kind = OutcomeKind.CANCELLED
                return self._queue, self._carried(operation_id, message, kind, Ended())
        return None

    def _carried(
        self, operation_id: str, message: Message, kind: OutcomeKind, ended: Ended
    ) -> Message:
        """Return the message that carries an outcome.

        Raises:
            MoveRefusedError: it is to be encrypted, and there are no keys.
        """
        try:
            call = self._codec.read(operation_id, message.body, message.headers)
        except FusewireError:  # it is malformed, or its key is not here
            method, request = message.type or "", None
        else:
            method, request = call.method, call.request
        try:
            return outcome_message(self._codec, operation_id, method, kind, request, ended)
        except FusewireError as error:  # the call stays until there are keys
            raise MoveRefusedError(
                f"the outcome of {operation_id} is not stored: {error}"
            ) from error


_KINDS = frozenset(map(str, OutcomeKind))


class OutcomeHandler:
    """Handles what is in a queue of outcomes: gives each to the user's function.

    Args:
        on_outcome: the user's function, plain or a coroutine function.
        codec: decrypts outcomes.
        methods: the classes of responses.
        halt: called if an outcome cannot be read here, to stop until it can.
    """

    def __init__(
        self,
        on_outcome: Callable[[Outcome], Any],
        codec: CallCodec,
        methods: Mapping[str, ParkPolicy],
        halt: Callable[[MissingKeyError], None],
    ) -> None:
        self._on_outcome = on_outcome
        self._codec = codec
        self._methods = methods
        self._halt = halt

    def handler(self) -> Callable[[AbstractIncomingMessage], Any]:
        """Return the handler: of the kind that the user's function is."""
        on_outcome = self._on_outcome

        async def handle(message: AbstractIncomingMessage) -> None:
            await on_outcome(self.read(message))

        def handle_sync(message: AbstractIncomingMessage) -> Any:
            return on_outcome(self.read(message))

        chosen = handle if is_coroutine_function(on_outcome) else handle_sync
        chosen.__qualname__ = name_of(on_outcome)
        return chosen

    def read(self, message: AbstractIncomingMessage) -> Outcome:
        """Read one.

        Raises:
            Reject: it is none.
            Requeue: it cannot be read here and now.
        """
        try:
            return read_outcome(
                self._codec,
                message.body,
                message.headers,
                to_request=_to_request,
                to_reply=self._to_reply,
            )
        except (UnreadableOutcomeError, UnreadableCallError) as error:
            raise Reject(str(error), reason="malformed") from error
        except MissingKeyError as error:
            self._halt(error)
            raise Requeue from error

    def _to_reply(self, method: str, data: bytes) -> Any:
        policy = self._methods.get(method)
        kind: Any = None if policy is None else policy.response
        kind = response_class(method) if kind is None else kind
        return data if kind is None else kind.FromString(data)


def _to_request(method: str, data: bytes) -> Any:
    kind = request_class(method)
    return data if kind is None else kind.FromString(data)


class OutcomeReading:
    """Reads the outcomes of a queue's calls, where they are asked for.

    Args:
        queue: the queue of the calls.
        on_outcome: called with each; None if another process reads them.
        codec: decrypts them.
        methods: the classes of responses.
        retry: when a function that failed is called again; by default ``RetryPolicy()``.
        exchange: what they are moved through.
        shutdown_timeout: seconds that functions may still take at the end.

    Raises:
        SettingsError: `on_outcome` or `retry` cannot be right.
    """

    def __init__(
        self,
        queue: str,
        on_outcome: Callable[[Outcome], Any] | None,
        *,
        codec: CallCodec,
        methods: Mapping[str, ParkPolicy],
        retry: RetryPolicy | None,
        exchange: str,
        shutdown_timeout: float,
    ) -> None:
        if on_outcome is not None:
            check_callable("on_outcome", on_outcome, "an outcome")
        check("outcome_retry", retry, instance_of(RetryPolicy).or_none)
        self._on_outcome = on_outcome
        self._codec = codec
        self._methods = methods
        self._retry = RetryPolicy() if retry is None else retry
        self._exchange = exchange
        self._shutdown_timeout = shutdown_timeout
        self.topology = queues_of(
            replies_queue(queue), (), retry=self._retry, replay=ReplayPolicy(), exchange=exchange
        )

    def reader(
        self, entry: BrokerEntry, loop: asyncio.AbstractEventLoop, thread: int | None
    ) -> ForwarderHandle | None:
        """Make what reads them, which does not run yet; None if another process does."""
        if self._on_outcome is None:
            return None

        def halt(missing: MissingKeyError) -> None:
            reader.halt(missing)

        reading = OutcomeHandler(self._on_outcome, self._codec, self._methods, halt)
        consumer = ParkingConsumer(
            entry.broker,
            queue=self.topology.source,
            handler=reading.handler(),
            retry=self._retry,
            exchange=self._exchange,
            shutdown_timeout=self._shutdown_timeout,
        )
        if self._codec.encrypts:
            keep_no_texts(consumer)
        reader = ForwarderHandle(
            consumer, self._codec, entry.done, loop, thread, kind="reader of outcomes"
        )
        return reader
