"""Parking operations on RabbitMQ."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn, Self

from aio_pika.exceptions import (
    AMQPChannelError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from pamqp.constants import DOMAIN_REGEX

from fusewire.brokers.rabbitmq.codec import from_amqp, to_amqp
from fusewire.brokers.rabbitmq.link import Link, close, is_lost
from fusewire.brokers.rabbitmq.queues import kept_arguments, queue_arguments
from fusewire.brokers.rabbitmq.subscription import RabbitMQSubscription
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    MoveRefusedError,
    QueueNotFoundError,
    SettingsError,
    UnconfirmedError,
)

_MAX_NAME = 255  # bytes: AMQP's short string

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from aio_pika.abc import AbstractChannel
    from pamqp.common import FieldTable

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Topology


class RabbitMQBroker:
    """Queues on RabbitMQ 3.10 or later, over one connection to publish and one to consume.

    Args:
        url: ``amqp://`` or ``amqps://`` with virtual host; its credentials are never logged.
        timeout: seconds that one operation may take: connect, declare, publish and its confirm.
        ssl_context: TLS settings for ``amqps://``; the system's certificates by default.

    Raises:
        SettingsError: the URL's scheme or the timeout cannot be right.
    """

    def __init__(
        self, url: str, *, timeout: float = 10.0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        if not url.startswith(("amqp://", "amqps://")):
            scheme = url.split(":", maxsplit=1)[0]
            raise SettingsError(
                f"a RabbitMQ address begins with amqp:// or amqps://, not {scheme!r}"
            )
        if not 0 < timeout < float("inf"):
            raise SettingsError(f"timeout={timeout!r}: give a positive number of seconds")
        self._timeout = timeout
        self._consuming = Link(url, purpose="consume", timeout=timeout, ssl_context=ssl_context)
        self._publishing = Link(url, purpose="publish", timeout=timeout, ssl_context=ssl_context)
        self._publisher: AbstractChannel | None = None
        self._opening_publisher = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect, so that a wrong address is known at once.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        await self._publishing.connection()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close both connections; what is in hand goes back."""
        await self._consuming.close()
        await self._publishing.close()

    async def prepare(self, topology: Topology) -> None:
        """Check the source queue and make what is absent of the derived ones.

        Each is looked for passively first: declared anew with other arguments than it was made
        with (by a policy's author, by an older version), a queue would refuse and close the
        channel.
        """
        if not await self._exists(topology.source):
            self._no_queue(
                topology.source,
                "a consumer never makes the queue that it consumes: declare it, or check the name "
                "and the virtual host",
            )
        arguments = queue_arguments(topology, await self._consuming.version())
        for queue, its_arguments in arguments.items():
            if not await self._exists(queue):
                await self._declare(queue, its_arguments)

    async def create_queue(self, queue: str) -> None:
        """Make a quorum queue, if there is none of the name."""
        if not await self._exists(queue):
            await self._declare(queue, kept_arguments(await self._consuming.version()))

    async def subscribe(self, queue: str, *, prefetch: int) -> RabbitMQSubscription:
        """Consume `queue` on a channel of its own."""
        _check(queue)
        channel = await self._consuming.open_channel(confirms=False)
        subscription = RabbitMQSubscription(queue, channel, self.publish, self._timeout)
        try:
            await subscription.start(prefetch)
        except ChannelNotFoundEntity:
            self._no_queue(queue, "it was deleted, or never made")
        except BaseException as error:
            await close(channel, self._timeout)
            if not is_lost(error):
                raise
            raise BrokerUnavailableError(f"cannot consume {queue!r}: {error!r}") from error
        return subscription

    async def publish(self, queue: str, message: Message) -> None:
        """Publish persistently and mandatorily, and await the confirm."""
        channel = await self._publisher_channel()
        try:
            await asyncio.wait_for(
                channel.default_exchange.publish(to_amqp(message), queue, mandatory=True),
                self._timeout,
            )
        except PublishError as error:
            raise MoveRefusedError(
                f"RabbitMQ returned a message for {queue!r}: there is no such queue"
            ) from error
        except DeliveryError as error:
            raise MoveRefusedError(
                f"RabbitMQ refused a message for {queue!r}: the queue is full or has no leader"
            ) from error
        except asyncio.CancelledError:
            self._abandon(channel)
            raise
        except Exception as error:
            # Whatever it is (aio-pika raises a bare Exception when we close the connection
            # ourselves): the frames may be with the broker already.
            self._abandon(channel)
            raise UnconfirmedError(
                f"no confirmation for a message to {queue!r} within {self._timeout:g} s "
                f"({error!r}): it may or may not be stored"
            ) from error

    async def depth(self, queue: str) -> int:
        """Count the ready messages of `queue`."""
        _check(queue)
        async with self._consuming.channel() as channel:
            try:
                declared = await channel.declare_queue(queue, passive=True, timeout=self._timeout)
            except ChannelNotFoundEntity:
                self._no_queue(queue, "it was deleted, or never made")
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot look at {queue!r}: {error!r}") from error
        return declared.declaration_result.message_count or 0

    async def peek(self, queue: str, *, limit: int) -> list[Message]:
        """Get messages and close the channel, which puts them back in order."""
        _check(queue)
        messages: list[Message] = []
        async with self._consuming.channel() as channel:
            try:
                declared = await channel.declare_queue(queue, passive=True, timeout=self._timeout)
                while len(messages) < limit:
                    incoming = await declared.get(fail=False, timeout=self._timeout)
                    if incoming is None:
                        break
                    messages.append(from_amqp(incoming))
            except ChannelNotFoundEntity:
                self._no_queue(queue, "it was deleted, or never made")
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot look at {queue!r}: {error!r}") from error
        return messages

    def _abandon(self, channel: AbstractChannel) -> None:
        """Use `channel` no more.

        After a late confirmation, publishes on it have been seen to wait for ever (aio-pika #689).
        """
        if self._publisher is channel:
            self._publisher = None
        closing = asyncio.create_task(close(channel, self._timeout))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _publisher_channel(self) -> AbstractChannel:
        async with self._opening_publisher:
            if self._publisher is None or self._publisher.is_closed:
                self._publisher = await self._publishing.open_channel(confirms=True)
            return self._publisher

    async def _exists(self, queue: str) -> bool:
        _check(queue)
        # A failed passive declare closes its channel, so each has one of its own.
        async with self._consuming.channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True, timeout=self._timeout)
            except ChannelNotFoundEntity:
                return False
            except AMQPChannelError as error:
                raise BrokerError(f"RabbitMQ does not let us look at {queue!r}: {error}") from error
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot look at {queue!r}: {error!r}") from error
        return True

    async def _declare(self, queue: str, arguments: FieldTable) -> None:
        async with self._consuming.channel() as channel:
            try:
                await channel.declare_queue(
                    queue, durable=True, arguments=arguments, timeout=self._timeout
                )
            except AMQPChannelError as error:
                raise BrokerError(
                    f"RabbitMQ does not let us make the queue {queue!r} ({error}): grant the "
                    f"configure permission, or make it with the arguments {arguments!r}"
                ) from error
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot make {queue!r}: {error!r}") from error

    def _no_queue(self, queue: str, remedy: str) -> NoReturn:
        raise QueueNotFoundError(
            f"there is no queue {queue!r} on RabbitMQ at {self._consuming.where}: {remedy}"
        ) from None


def _check(queue: str) -> None:
    # pamqp raises ValueError without saying for which name, and in a task of the client's own.
    if not DOMAIN_REGEX["queue-name"].fullmatch(queue) or len(queue.encode()) > _MAX_NAME:
        raise SettingsError(
            f"queue {queue!r}: the AMQP client takes names of at most {_MAX_NAME} letters, digits, "
            "spaces and - _ . : @ # , / +"
        )
