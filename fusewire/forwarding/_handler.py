"""The handler of stored calls: it sends them, and decides what their end means."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._key_text import IDEMPOTENCY_TRAILER, key_of_id
from fusewire._log_fields import fields
from fusewire._sendable import is_valid_metadata
from fusewire.errors import CircuitOpenError
from fusewire.forwarding._call import StoredCall, UnreadableCallError
from fusewire.forwarding._encryption import MissingKeyError
from fusewire.forwarding._outcome import ReplayOutcome, outcome_of
from fusewire.forwarding._transport import ChannelClosedError
from fusewire.interceptors import read_retry_after
from fusewire.operation import IDEMPOTENCY_KEY, current_operation
from fusewire.parking import Reject, Retry
from fusewire.parking.internal import Requeue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.forwarding._transport import Transport

logger = logging.getLogger("fusewire.forwarding")


_PATIENCE = 1.0
"""Seconds after which a server is asked again that is busy, and does not say when to come back."""

_LONGEST_WAIT = 60.0
"""Seconds that it is waited for such a server at most, whatever it asks for."""


class ReplayHandler:
    """Handles each stored call.

    Args:
        transport: sends on the guarded channel, whose breakers and classification apply.
        codec: reads what is stored.
        timeout: seconds for one attempt of a call that was made without a deadline.
        stop: called if the channel is closed, to end the forwarder.
        halt: called if a call cannot be read here, to stop the forwarder until it can.
    """

    def __init__(
        self,
        transport: Transport,
        codec: CallCodec,
        timeout: float,
        *,
        stop: Callable[[], None],
        halt: Callable[[MissingKeyError], None],
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._timeout = timeout
        self._stop = stop
        self._halt = halt

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        """Send one stored call. Raises what tells the consumer what to do with its message."""
        operation = current_operation()
        operation_id = operation.id if operation is not None else str(message.message_id)
        try:
            call = await self._read(operation_id, message)
        except UnreadableCallError as error:
            raise Reject(str(error), reason="malformed") from error
        except MissingKeyError as error:
            self._halt(error)  # others may have the key, or this one soon: it kills no call
            raise Requeue from error
        if call.not_after_ms is not None and time.time() * 1000 > call.not_after_ms:
            raise Reject("its time is over, whatever its headers say", reason="expired")
        metadata = (*call.metadata, (IDEMPOTENCY_KEY, key_of_id(operation_id)))
        if not is_valid_metadata(metadata):
            raise Reject(f"its metadata cannot be sent: {call.metadata!r:.500}", reason="malformed")
        try:
            await self._transport.send(call, metadata, call.timeout or self._timeout)
        except CircuitOpenError:
            raise  # nothing was sent: it waits
        except ChannelClosedError as error:
            logger.warning(
                "%s: the forwarder ends, and what is not settled stays parked",
                error,
                extra=fields("forwarder.ended"),
            )
            self._stop()
            if error.sent and call.at_most_once:
                raise Reject(str(error), reason=ReplayOutcome.AMBIGUOUS.value) from error
            raise Requeue from error
        except grpc.RpcError as error:
            self._reject_if_over(call, error)
            raise

    async def _read(self, operation_id: str, message: AbstractIncomingMessage) -> StoredCall:
        try:
            return self._codec.read(operation_id, message.body, message.headers)
        except MissingKeyError as missing:
            if missing.key is None:
                raise
        await self._codec.refresh()
        return self._codec.read(operation_id, message.body, message.headers)

    def _reject_if_over(self, call: StoredCall, error: grpc.RpcError) -> None:
        """Raise Reject if the call must not or need not be sent again, or Retry if only later."""
        code: grpc.StatusCode = error.code()
        timeout = call.timeout or self._timeout
        trailing: Any = error.trailing_metadata()
        retry_after = read_retry_after(trailing or ())
        outcome = outcome_of(
            code,
            error.details() or "",
            timeout,
            at_most_once=call.at_most_once,
            hinted=retry_after is not None,
            word=_word_in(trailing or ()),
        )
        if outcome is ReplayOutcome.POSTPONED:
            after = min(_PATIENCE if retry_after is None else retry_after, _LONGEST_WAIT)
            raise Retry(f"{call.method} ended {code.name}", after=after) from error
        if outcome is not ReplayOutcome.RETRY:
            raise Reject(f"{call.method} ended {code.name}", reason=outcome.value) from error


def _word_in(trailing: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return what a server of ours says about the key."""
    words = [value for key, value in trailing if key == IDEMPOTENCY_TRAILER]
    return words[-1] if words and isinstance(words[-1], str) else None
