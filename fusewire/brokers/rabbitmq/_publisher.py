"""Publishing with confirms, over one channel that is opened when it is needed."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused

from fusewire.brokers._names import queue_name
from fusewire.brokers.rabbitmq._codec import to_amqp
from fusewire.brokers.rabbitmq._connection import Link, close
from fusewire.brokers.rabbitmq._delays import tier_for
from fusewire.brokers.rabbitmq._layout import delay_queue
from fusewire.brokers.rabbitmq._workarounds.cancellation import raising_connection_lost, spawn
from fusewire.brokers.topology import Station, check_delay
from fusewire.errors import (
    BrokerError,
    MoveRefusedError,
    QueueNotFoundError,
    UnconfirmedError,
)

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection
    from aiormq.channel import Channel

    from fusewire.brokers.message import Message
    from fusewire.brokers.rabbitmq._layout import Layout

_UNPREPARED = "its delay queues are not known; call prepare() with its topology first"
_TOO_LARGE = re.compile(r"message size (\d+) is larger than (?:configured )?max size (\d+)")


@dataclass(slots=True)
class PublishChannel:
    """A channel to publish on, and what is known of its permissions."""

    channel: AbstractChannel
    underlay: Channel
    permitted: set[str] = field(default_factory=set)
    """Exchanges through which it has stored a message."""
    in_flight: int = 0
    """Publishes that wait for their confirm."""
    closing: bool = False


class Publisher:
    """Publishes persistently and mandatorily, and awaits each confirm.

    Args:
        link: the connection for publishing.
        timeout: seconds that a publish and its confirm may take.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._exchanges: dict[str, str] = {}
        self._tiers: dict[str, list[float]] = {}
        self._link = link
        self._timeout = timeout
        self._current: PublishChannel | None = None
        self._connection: AbstractConnection | None = None
        self._largest = math.inf
        """Bytes of a body that RabbitMQ takes, as far as it has said so on this connection."""
        self._opening = asyncio.Lock()

    def prepare(self, layout: Layout) -> None:
        """Learn the exchange and the delay queues of a source queue."""
        source = layout.source
        # Two consumers may share a broker and a queue: the delay queues of both are there.
        tiers = {*self._tiers.get(source, ()), *layout.topology.delays}
        self._tiers[source] = sorted(tiers)
        for queue in layout.queues:  # those of the other consumer stay bound to its exchange
            self._exchanges[queue] = layout.exchange

    def queues(self, station: Station | str) -> list[str]:
        """Return the names of the queues that hold a station's messages.

        Raises:
            QueueNotFoundError: its delay queues are not known.
        """
        if isinstance(station, str) or station.kind != "delayed":
            return [queue_name(station)]
        if (tiers := self._tiers.get(station.queue)) is None:
            raise QueueNotFoundError(f"no delay queue of {station.queue!r}: {_UNPREPARED}")
        return [delay_queue(station.queue, tier) for tier in tiers]

    async def publish(self, to: Station | str, message: Message, delay: float) -> None:
        """Store `message` in `to`; see :meth:`fusewire.brokers.Broker.publish`."""
        queue = queue_name(to) if not delay else self._delay_queue(Station.of(to), delay)
        exchange = self._exchanges.get(queue, "")
        used = self._current
        if used is None or used.channel.is_closed:
            used = await self.open()
        # Before the channel is used: what AMQP cannot carry puts nothing in doubt that is on it.
        try:
            body, properties = to_amqp(message, used.underlay.max_content_size)
        except ValueError as error:
            raise MoveRefusedError(f"a message for {queue!r} is not stored: {error}") from error
        used.in_flight += 1
        try:
            async with asyncio.timeout(self._timeout):
                # Not waiting for the socket lets publishes follow each other on the wire. What may
                # pile up before it is what waits for a confirm: when none comes, the channel is
                # thrown away, and the next is opened only by a broker that reads again.
                if len(body) > self._largest:
                    raise _too_large(queue, len(body), self._largest)  # noqa: TRY301 - sent, it would close the channel
                with raising_connection_lost():
                    await used.underlay.basic_publish(
                        body,
                        exchange=exchange,
                        routing_key=queue,
                        properties=properties,
                        mandatory=True,
                        wait=False,
                    )
        except MoveRefusedError:
            raise
        except PublishError as error:
            bound = f" that is bound to exchange {exchange!r} by its name" if exchange else ""
            raise MoveRefusedError(
                f"RabbitMQ returned a message for {queue!r}: there is no such queue{bound}"
            ) from error
        except DeliveryError as error:
            self._retire(used)
            raise MoveRefusedError(
                f"RabbitMQ refused a message for {queue!r}: the queue is full or has no leader"
            ) from error
        except asyncio.CancelledError:
            self._discard(used)
            raise
        except Exception as error:
            raise self._judge(error, queue, exchange, used, len(body)) from error
        finally:
            used.in_flight -= 1
            if used is not self._current and not used.in_flight:
                self._close(used)
        used.permitted.add(exchange)

    def _delay_queue(self, to: Station, delay: float) -> str:
        check_delay(to)
        if (tiers := self._tiers.get(to.queue)) is None:
            raise MoveRefusedError(f"a message for {to.queue!r} is not stored: {_UNPREPARED}")
        return delay_queue(to.queue, tier_for(delay, tiers))

    async def open(self) -> PublishChannel:
        """Return the channel to publish on, opened now if there is none.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        async with self._opening:
            if self._current is None or self._current.channel.is_closed:
                connection = await self._link.connection()
                if connection is not self._connection:  # perhaps to a broker with other settings
                    self._connection, self._largest = connection, math.inf
                channel = await self._link.open_channel(confirms=True)
                self._current = PublishChannel(
                    channel, cast("Channel", await channel.get_underlay_channel())
                )
            return self._current

    def _judge(
        self,
        error: Exception,
        queue: str,
        exchange: str,
        used: PublishChannel,
        size: int,
    ) -> BrokerError:
        """Return the error for a message: not stored, or in doubt. The channel may be gone.

        Args:
            error: whatever it was; aio-pika raises a bare Exception when we close the connection.
            queue: where the message was to go.
            exchange: through which it went.
            used: the channel.
            size: the bytes of its body.
        """
        self._discard(used)  # the frames may be with the broker already
        if isinstance(error, ChannelAccessRefused) and exchange not in used.permitted:
            # The broker asks for each exchange of a channel once, before it stores anything.
            return MoveRefusedError(
                f"RabbitMQ refused a message for {queue!r} ({error}): not stored; grant the "
                f"write permission on exchange {exchange or 'amq.default'!r}"
            )
        if (said := _TOO_LARGE.search(str(error))) is not None:
            # Known from now on: sent again and again, it would each time put in doubt what others
            # have in flight on the channel.
            self._largest = int(said[2])
            if int(said[1]) == size:
                return _too_large(queue, size, self._largest)
        return UnconfirmedError(
            f"no confirmation for a message to {queue!r} within {self._timeout:g} s ({error!r}): "
            "it may or may not be stored"
        )

    def _discard(self, used: PublishChannel) -> None:
        """Use its channel no more.

        After a late confirmation, publishes on it have been seen to wait forever (aio-pika #689).
        """
        self._retire(used)
        self._close(used)

    def _retire(self, used: PublishChannel) -> None:
        """Use its channel for what is in flight, and for nothing more.

        A quorum queue that was full when a length limit was taken away goes on to refuse what comes
        over the channels that it has refused before; seen on RabbitMQ 3.10.8.
        """
        if self._current is used:
            self._current = None

    def _close(self, used: PublishChannel) -> None:
        if not used.closing:
            used.closing = True
            spawn(close(used.channel, self._timeout))


def _too_large(queue: str, size: int, largest: float) -> MoveRefusedError:
    return MoveRefusedError(
        f"RabbitMQ refuses a message for {queue!r}: not stored; its body has {size} bytes, and "
        f"max_message_size is {largest:.0f}"
    )
