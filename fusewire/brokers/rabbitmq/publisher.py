"""Publishing with confirms, over one channel that is opened when it is needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused

from fusewire.brokers.rabbitmq.codec import to_amqp
from fusewire.brokers.rabbitmq.link import Link, close
from fusewire.errors import MoveRefusedError, UnconfirmedError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel
    from aiormq.channel import Channel

    from fusewire.brokers.message import Message


@dataclass(slots=True)
class Way:
    """A channel to publish on, and what is known of its permissions."""

    channel: AbstractChannel
    underlay: Channel
    permitted: set[str] = field(default_factory=set)
    """Exchanges through which it has stored a message."""


class Publisher:
    """Publishes persistently and mandatorily, and awaits each confirm.

    Args:
        link: the connection for publishing.
        timeout: seconds that a publish and its confirm may take.

    Attributes:
        exchanges: the exchange that a queue is bound to; others are reached by the default one.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self.exchanges: dict[str, str] = {}
        self._link = link
        self._timeout = timeout
        self._way: Way | None = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def publish(self, queue: str, message: Message) -> None:
        """Store `message` in `queue`; see :meth:`fusewire.brokers.Broker.publish`."""
        exchange = self.exchanges.get(queue, "")
        way = self._way
        if way is None or way.channel.is_closed:
            way = await self.open()
        try:
            async with asyncio.timeout(self._timeout):
                # Not waiting for the socket lets publishes follow each other on the wire. What may
                # pile up before it is what waits for a confirm: when none comes, the channel is
                # thrown away, and the next is opened only by a broker that reads again.
                body, properties = to_amqp(message, way.underlay.max_content_size)
                await way.underlay.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=queue,
                    properties=properties,
                    mandatory=True,
                    wait=False,
                )
        except PublishError as error:
            bound = f" that is bound to exchange {exchange!r} by its name" if exchange else ""
            raise MoveRefusedError(
                f"RabbitMQ returned a message for {queue!r}: there is no such queue{bound}"
            ) from error
        except DeliveryError as error:
            raise MoveRefusedError(
                f"RabbitMQ refused a message for {queue!r}: the queue is full or has no leader"
            ) from error
        except asyncio.CancelledError:
            self._abandon(way)
            raise
        except Exception as error:
            # Whatever it is (aio-pika raises a bare Exception when we close the connection
            # ourselves): the frames may be with the broker already.
            self._abandon(way)
            if isinstance(error, ChannelAccessRefused) and exchange not in way.permitted:
                # The broker asks for each exchange of a channel once, before it stores anything.
                raise MoveRefusedError(
                    f"RabbitMQ refused a message for {queue!r} ({error}): not stored; grant the "
                    f"write permission on exchange {exchange or 'amq.default'!r}"
                ) from error
            raise UnconfirmedError(
                f"no confirmation for a message to {queue!r} within {self._timeout:g} s "
                f"({error!r}): it may or may not be stored"
            ) from error
        way.permitted.add(exchange)

    async def open(self) -> Way:
        """Return the channel to publish on, opened now if there is none.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        async with self._opening:
            if self._way is None or self._way.channel.is_closed:
                channel = await self._link.open_channel(confirms=True)
                self._way = Way(channel, cast("Channel", await channel.get_underlay_channel()))
            return self._way

    def _abandon(self, way: Way) -> None:
        """Use its channel no more.

        After a late confirmation, publishes on it have been seen to wait for ever (aio-pika #689).
        """
        if self._way is way:
            self._way = None
        closing = asyncio.create_task(close(way.channel, self._timeout))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
