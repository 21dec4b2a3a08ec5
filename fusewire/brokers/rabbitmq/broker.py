"""Parking operations on RabbitMQ."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused

from fusewire.brokers.rabbitmq.codec import from_amqp, to_amqp
from fusewire.brokers.rabbitmq.declaring import Declarer, check_name
from fusewire.brokers.rabbitmq.link import Link, close, is_lost
from fusewire.brokers.rabbitmq.subscription import RabbitMQSubscription
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    MoveRefusedError,
    SettingsError,
    UnconfirmedError,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from aio_pika.abc import AbstractChannel, AbstractExchange

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Topology


@dataclass(slots=True)
class _Publisher:
    """A channel to publish on, and what is known of its permissions."""

    channel: AbstractChannel
    permitted: set[str] = field(default_factory=set)
    """Exchanges through which it has stored a message."""

    async def exchange(self, name: str) -> AbstractExchange:
        if not name:
            return self.channel.default_exchange
        return await self.channel.get_exchange(name, ensure=False)


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
        self._declarer = Declarer(self._consuming, timeout)
        self._exchanges: dict[str, str] = {}
        """The exchange that a prepared queue is bound to; others are reached by the default one."""
        self._publisher: _Publisher | None = None
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
        """Check the source queue and make what is absent of the exchange and the derived queues."""
        await self._declarer.prepare(topology)
        for queue in (topology.source, *topology.derived):
            self._exchanges[queue] = topology.exchange

    async def create_queue(self, queue: str) -> None:
        """Make a quorum queue, if there is none of the name."""
        await self._declarer.create_queue(queue)

    async def subscribe(self, queue: str, *, prefetch: int) -> RabbitMQSubscription:
        """Consume `queue` on a channel of its own."""
        check_name(queue)
        channel = await self._consuming.open_channel(confirms=False)
        subscription = RabbitMQSubscription(queue, channel, self.publish, self._timeout)
        try:
            await subscription.start(prefetch)
        except ChannelNotFoundEntity:
            self._declarer.no_queue(queue, "it was deleted, or never made")
        except ChannelAccessRefused as error:
            raise _unreadable(queue, error) from error
        except BaseException as error:
            await close(channel, self._timeout)
            if not is_lost(error):
                raise
            raise BrokerUnavailableError(f"cannot consume {queue!r}: {error!r}") from error
        return subscription

    async def publish(self, queue: str, message: Message) -> None:
        """Publish persistently and mandatorily, and await the confirm."""
        name = self._exchanges.get(queue, "")
        publisher = await self._open_publisher()
        try:
            exchange = await publisher.exchange(name)
            await asyncio.wait_for(
                exchange.publish(to_amqp(message), queue, mandatory=True), self._timeout
            )
        except PublishError as error:
            bound = f" that is bound to exchange {name!r} by its name" if name else ""
            raise MoveRefusedError(
                f"RabbitMQ returned a message for {queue!r}: there is no such queue{bound}"
            ) from error
        except DeliveryError as error:
            raise MoveRefusedError(
                f"RabbitMQ refused a message for {queue!r}: the queue is full or has no leader"
            ) from error
        except asyncio.CancelledError:
            self._abandon(publisher)
            raise
        except Exception as error:
            # Whatever it is (aio-pika raises a bare Exception when we close the connection
            # ourselves): the frames may be with the broker already.
            self._abandon(publisher)
            if isinstance(error, ChannelAccessRefused) and name not in publisher.permitted:
                # The broker asks for each exchange of a channel once, before it stores anything.
                raise MoveRefusedError(
                    f"RabbitMQ refused a message for {queue!r} ({error}): not stored; grant the "
                    f"write permission on exchange {name or 'amq.default'!r}"
                ) from error
            raise UnconfirmedError(
                f"no confirmation for a message to {queue!r} within {self._timeout:g} s "
                f"({error!r}): it may or may not be stored"
            ) from error
        publisher.permitted.add(name)

    async def depth(self, queue: str) -> int:
        """Count the ready messages of `queue`."""
        check_name(queue)
        async with self._consuming.channel() as channel:
            try:
                declared = await channel.declare_queue(queue, passive=True, timeout=self._timeout)
            except ChannelNotFoundEntity:
                self._declarer.no_queue(queue, "it was deleted, or never made")
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot look at {queue!r}: {error!r}") from error
        return declared.declaration_result.message_count or 0

    async def peek(self, queue: str, *, limit: int) -> list[Message]:
        """Get messages and close the channel, which puts them back in order."""
        check_name(queue)
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
                self._declarer.no_queue(queue, "it was deleted, or never made")
            except ChannelAccessRefused as error:
                raise _unreadable(queue, error) from error
            except Exception as error:
                if not is_lost(error):
                    raise
                raise BrokerUnavailableError(f"cannot look at {queue!r}: {error!r}") from error
        return messages

    def _abandon(self, publisher: _Publisher) -> None:
        """Use its channel no more.

        After a late confirmation, publishes on it have been seen to wait for ever (aio-pika #689).
        """
        if self._publisher is publisher:
            self._publisher = None
        closing = asyncio.create_task(close(publisher.channel, self._timeout))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _open_publisher(self) -> _Publisher:
        async with self._opening_publisher:
            if self._publisher is None or self._publisher.channel.is_closed:
                self._publisher = _Publisher(await self._publishing.open_channel(confirms=True))
            return self._publisher


def _unreadable(queue: str, error: ChannelAccessRefused) -> BrokerError:
    return BrokerError(
        f"RabbitMQ does not let us read {queue!r} ({error}): grant the read permission on it"
    )
