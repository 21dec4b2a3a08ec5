"""Sends stored calls on a channel, without stubs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio.to_thread
import grpc
import grpc.aio

from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.forwarding.call import StoredCall, UnreadableCallError, read_call
from fusewire.forwarding.outcome import ReplayEnd, end_of
from fusewire.operation import IDEMPOTENCY_KEY, current_operation
from fusewire.parking import Reject

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"


class Sender(Protocol):
    """One unary call over a channel of either kind."""

    async def __call__(self, call: StoredCall, metadata: Metadata, timeout: float) -> None:  # noqa: ASYNC109 - gRPC's own deadline
        """Send it and wait for its end; raises grpc.RpcError if that is not OK."""


def sender(channel: grpc.Channel | grpc.aio.Channel) -> Sender:
    """Return what sends on `channel`.

    Raises:
        SettingsError: it is no channel.
    """
    if isinstance(channel, grpc.aio.Channel):
        return _AioSender(channel)
    if isinstance(channel, grpc.Channel):
        return _SyncSender(channel)
    raise SettingsError(
        f"channel={channel!r} is neither a grpc.Channel nor a grpc.aio.Channel: give a guarded one"
    )


class Forwarder:
    """The handler of stored calls.

    Args:
        send: sends on the guarded channel, whose breakers and classification apply.
        timeout: seconds for one attempt of a call that was made without a deadline.
    """

    def __init__(self, send: Sender, timeout: float) -> None:
        self._send = send
        self._timeout = timeout

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        """Send one stored call again. Raises as a handler does."""
        try:
            call = read_call(message.body, message.headers)
        except UnreadableCallError as error:
            raise Reject(str(error), reason="malformed") from error
        operation = current_operation()
        key = operation.id if operation is not None else str(message.message_id)
        metadata = (*call.metadata, (IDEMPOTENCY_KEY, key))
        try:
            await self._send(call, metadata, call.timeout or self._timeout)
        except CircuitOpenError:
            raise  # nothing was sent: it waits
        except grpc.RpcError as error:
            self._judge(call, error)
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if call.at_most_once and not (task is not None and task.cancelling()):
                raise Reject(
                    "the channel was closed during the call", reason="ambiguous"
                ) from error
            raise

    def _judge(self, call: StoredCall, error: grpc.RpcError) -> None:
        code: grpc.StatusCode = error.code()
        end = end_of(code, at_most_once=call.at_most_once)
        if end is not ReplayEnd.RETRY:
            raise Reject(f"{call.method} ended {code.name}", reason=end.value) from error


class _AioSender:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __call__(self, call: StoredCall, metadata: Metadata, timeout: float) -> None:  # noqa: ASYNC109
        # Without serializers the stored bytes go out, and the reply's come in, as they are.
        multicallable: Any = self._channel.unary_unary(call.method)
        await multicallable(call.request, metadata=metadata, timeout=timeout)


class _SyncSender:
    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def __call__(self, call: StoredCall, metadata: Metadata, timeout: float) -> None:  # noqa: ASYNC109
        multicallable: Any = self._channel.unary_unary(call.method)

        def send() -> None:
            multicallable(call.request, metadata=metadata, timeout=timeout)

        await anyio.to_thread.run_sync(send)
