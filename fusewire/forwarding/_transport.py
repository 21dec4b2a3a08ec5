"""One unary call on a channel of either kind, without stubs."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio.to_thread
import grpc
import grpc.aio

from fusewire._validation import invalid
from fusewire.errors import FusewireError, SettingsError
from fusewire.interceptors import registries_of

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from fusewire.forwarding._call import StoredCall

logger = logging.getLogger("fusewire.forwarding")

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

_MOST_METHODS = 256
"""Methods whose multicallables are kept; a channel makes a new one each time that it is asked."""

_CLOSED_IN_FLIGHT = "Channel closed!"  # grpc/_channel.py: details of calls that close() cancels


class ChannelClosedError(FusewireError):
    """The channel was closed while calls were forwarded on it.

    Attributes:
        sent: whether the call may have reached the server.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the channel was closed while calls were forwarded on it")
        self.sent = sent


class Transport(Protocol):
    """Sends one call and waits for its end."""

    async def send(self, call: StoredCall, metadata: Metadata, timeout: float) -> bytes:  # noqa: ASYNC109 - gRPC's own deadline
        """Send `call`, and return the reply.

        Raises:
            grpc.RpcError: it did not end OK.
            ChannelClosedError: the channel was closed before it or during it.
        """


def transport(channel: grpc.Channel | grpc.aio.Channel) -> Transport:
    """Return what sends calls on `channel`.

    Raises:
        SettingsError: it is no channel.
    """
    if isinstance(channel, grpc.aio.Channel):
        return _AioTransport(channel)
    if isinstance(channel, grpc.Channel):
        return _SyncTransport(channel)
    raise invalid("channel", "a guarded grpc.Channel or grpc.aio.Channel", channel)


def check_guards(channel: grpc.Channel | grpc.aio.Channel, registry: BreakerRegistry) -> None:
    """Check that a channel is guarded by breakers of `registry`, which decide when to replay.

    Raises:
        SettingsError: they are of different registries.
    """
    registries = registries_of(channel)
    if registries is None:
        return  # the user's own kind of channel
    if not registries:
        logger.warning(
            "forward_to() was given a channel without a guard: no circuit opens while the "
            "server is down, and each replay then costs the call an attempt; give "
            "guard(channel), or a channel with aio_interceptors()"
        )
    elif registry not in registries:
        raise SettingsError(
            "registry must be that of the channel's guard, got another one, so the breakers that "
            "say when to replay would never change: give both the same registry="
        )


class _AioTransport:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Without serializers the stored bytes go out, and the reply's come in, as they are.
        self._multicallable: Any = functools.lru_cache(_MOST_METHODS)(channel.unary_unary)

    async def send(self, call: StoredCall, metadata: Metadata, timeout: float) -> bytes:  # noqa: ASYNC109 - gRPC's own deadline
        multicallable = self._multicallable(call.method)
        try:
            reply: bytes = await multicallable(call.request, metadata=metadata, timeout=timeout)
        except grpc.aio.UsageError as error:
            raise ChannelClosedError(sent=False) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled us: it was the call, which close() cancels.
            raise ChannelClosedError(sent=True) from error
        return reply


class _SyncTransport:
    def __init__(self, channel: grpc.Channel) -> None:
        self._multicallable: Any = functools.lru_cache(_MOST_METHODS)(channel.unary_unary)

    async def send(self, call: StoredCall, metadata: Metadata, timeout: float) -> bytes:  # noqa: ASYNC109 - gRPC's own deadline
        multicallable = self._multicallable(call.method)

        def send() -> bytes:
            reply: bytes = multicallable(call.request, metadata=metadata, timeout=timeout)
            return reply

        try:
            return await anyio.to_thread.run_sync(send)
        except ValueError as error:  # what grpcio raises on a closed channel, and only then
            raise ChannelClosedError(sent=False) from error
        except grpc.RpcError as error:
            # What a sync call raises is a call too, and has details.
            if error.details() == _CLOSED_IN_FLIGHT:
                raise ChannelClosedError(sent=True) from error
            raise
