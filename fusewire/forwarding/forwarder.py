"""The handler of stored calls: sends them again, and says what their end means."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from fusewire._key_text import key_of_id
from fusewire._sendable import is_valid_metadata
from fusewire.errors import CircuitOpenError
from fusewire.forwarding.call import StoredCall, UnreadableCallError, read_call
from fusewire.forwarding.outcome import ReplayEnd, end_of
from fusewire.forwarding.sending import ChannelClosedError
from fusewire.interceptors import read_retry_after
from fusewire.operation import IDEMPOTENCY_KEY, current_operation
from fusewire.parking import Reject
from fusewire.parking.errors import HandBack

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.forwarding.sending import Sender

logger = logging.getLogger("fusewire.forwarding")


class Forwarder:
    """Called with each stored call.

    Args:
        send: sends on the guarded channel, whose breakers and classification apply.
        timeout: seconds for one attempt of a call that was made without a deadline.
        stop: called when the channel is found closed, to end the forwarding.
    """

    def __init__(self, send: Sender, timeout: float, stop: Callable[[], None]) -> None:
        self._send = send
        self._timeout = timeout
        self._stop = stop

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        """Send one stored call again. Raises as a handler does."""
        try:
            call = read_call(message.body, message.headers)
        except UnreadableCallError as error:
            raise Reject(str(error), reason="malformed") from error
        operation = current_operation()
        stored = operation.id if operation is not None else str(message.message_id)
        metadata = (*call.metadata, (IDEMPOTENCY_KEY, key_of_id(stored)))
        if not is_valid_metadata(metadata):
            raise Reject(f"its metadata cannot be sent: {call.metadata!r:.500}", reason="malformed")
        try:
            await self._send(call, metadata, call.timeout or self._timeout)
        except CircuitOpenError:
            raise  # nothing was sent: it waits
        except ChannelClosedError as error:
            logger.warning("%s: forwarding ends, and what is not settled stays parked", error)
            self._stop()
            if error.sent and call.at_most_once:
                raise Reject(str(error), reason=ReplayEnd.AMBIGUOUS.value) from error
            raise HandBack from error
        except grpc.RpcError as error:
            self._judge(call, error)
            raise

    def _judge(self, call: StoredCall, error: grpc.RpcError) -> None:
        code: grpc.StatusCode = error.code()
        timeout = call.timeout or self._timeout
        trailing: Any = error.trailing_metadata()
        end = end_of(
            code,
            error.details() or "",
            timeout,
            at_most_once=call.at_most_once,
            hinted=read_retry_after(trailing or ()) is not None,
        )
        if end is not ReplayEnd.RETRY:
            raise Reject(f"{call.method} ended {code.name}", reason=end.value) from error
