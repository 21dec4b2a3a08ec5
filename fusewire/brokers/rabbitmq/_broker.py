"""Parking operations on RabbitMQ."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from fusewire._validation import SECONDS, check
from fusewire.brokers._names import mark_name, queue_name
from fusewire.brokers.protocol import Capabilities
from fusewire.brokers.rabbitmq._addresses import addresses, shown
from fusewire.brokers.rabbitmq._codec import from_amqp
from fusewire.brokers.rabbitmq._connection import Link, close, is_lost
from fusewire.brokers.rabbitmq._declare import Declarer, check_name
from fusewire.brokers.rabbitmq._layout import Layout
from fusewire.brokers.rabbitmq._management_address import management_address
from fusewire.brokers.rabbitmq._publisher import Publisher
from fusewire.brokers.rabbitmq._reachability import Reachability
from fusewire.brokers.rabbitmq._single_active_consumer import peek_as_consumer
from fusewire.brokers.rabbitmq._subscription import RabbitMQSubscription
from fusewire.brokers.rabbitmq._workarounds.cancellation import run_to_completion
from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import Delivered
from fusewire.errors import BrokerError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from types import TracebackType

    from aio_pika.abc import AbstractChannel
    from pamqp.commands import Queue

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Station, Topology

_MARKS_KEPT = 86400.0
"""Seconds after which RabbitMQ deletes a mark that nobody took away."""


class RabbitMQBroker:
    """Queues on RabbitMQ 3.10 or later, over one connection to publish and one to consume.

    Args:
        url: ``amqp://`` or ``amqps://`` with virtual host; its credentials are never logged.
            Several nodes of one cluster with commas between them, ``amqp://a/shop,amqp://b/shop``,
            are tried in turn. For ``amqps://`` the query may name files: ``cafile`` (or
            ``capath``) of the authority to trust, ``certfile`` and ``keyfile`` of a client.
        timeout: seconds that one operation may take: connect to a node, declare, publish and its
            confirm.
        ssl_context: TLS settings for ``amqps://``, in place of the query's; without either the
            system's certificates are trusted.
        management: URL of the management API, for :func:`fusewire.audit.audit`; by default what
            ``FUSEWIRE_MANAGEMENT_URL`` says in the environment. Its user is the AMQP URL's, unless
            it names one. For ``https://`` the `ssl_context` holds too; without, the system's
            certificates, or those of the file that ``?cafile=`` names.

    Raises:
        SettingsError: a URL or the timeout cannot be right.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        management: str | None = None,
    ) -> None:
        check("timeout", timeout, SECONDS)
        self._timeout = timeout
        found = addresses(url)
        reachability = Reachability(",".join(map(shown, found)))
        link = partial(
            Link, found, timeout=timeout, ssl_context=ssl_context, reachability=reachability
        )
        self._consuming = link(purpose="consume")
        self._publishing = link(purpose="publish")
        self.management = management_address(
            management, amqp=found[0], ssl_context=ssl_context, timeout=timeout
        )
        self._declarer = Declarer(self._consuming, timeout)
        self._publisher = Publisher(self._publishing, timeout)
        self._subscriptions = WeakSet[RabbitMQSubscription]()
        self._silent: set[str] = set()
        """Queues of which nothing is said any more if nothing comes from them."""

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
        """Close both connections; what is in flight is requeued."""
        await self._consuming.close()
        await self._publishing.close()

    @property
    def capabilities(self) -> Capabilities:
        """Delays are queues with one time to live, so that only those of a topology are kept."""
        return Capabilities(any_delay=False, system="rabbitmq")

    async def prepare(self, topology: Topology) -> None:
        """Check the source queue and make what is absent of the exchange and the derived queues."""
        layout = Layout(topology)
        await self._declarer.prepare(layout)
        self._publisher.prepare(layout)
        if topology.single:
            # All but one wait for their turn there.
            self._silent.update(queue_name(topology.parked(lane)) for lane in topology.lanes)

    async def create_queue(self, queue: str) -> None:
        """Make a quorum queue, if there is none of the name."""
        await self._declarer.create_queue(queue)

    async def mark(self, queue: str, mark: str) -> None:
        """Make an empty queue, which RabbitMQ deletes when a day has passed."""
        await self._declarer.create_expiring_queue(mark_name(queue, mark), _MARKS_KEPT)

    async def unmark(self, queue: str, mark: str) -> None:
        """Delete the queue that is a mark."""
        await self._declarer.delete_queue(mark_name(queue, mark))

    async def is_marked(self, queue: str, mark: str) -> bool:
        """Return whether there is the queue that is a mark."""
        return await self._declarer.exists(mark_name(queue, mark))

    @property
    def virtual_host(self) -> str:
        """The name of the virtual host."""
        return self._consuming.virtual_host

    async def version(self) -> tuple[int, ...]:
        """Return RabbitMQ's version, ``(3, 10, 8)`` for example.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        return await self._consuming.version()

    async def queue_types(self, queues: Iterable[str]) -> dict[str, str | None]:
        """Return the type of each of `queues` that exists; None where RabbitMQ does not say.

        Raises:
            BrokerError: one may not be looked at.
        """
        return {
            queue: await self._declarer.type_of(queue)
            for queue in queues
            if await self._declarer.exists(queue)
        }

    async def subscribe(self, station: Station | str, *, prefetch: int) -> RabbitMQSubscription:
        """Consume the queue of `station` on a channel of its own.

        Raises:
            BrokerError: it is a stream, or may not be read.
        """
        queue = queue_name(station)
        await self._declarer.refuse_stream(queue)
        try:
            return await self._consuming.persist(
                f"consume {queue!r}", partial(self._subscribe, queue, prefetch)
            )
        except ChannelNotFoundEntity:
            self._declarer.no_queue(queue, "it was deleted, or never made")
        except ChannelAccessRefused as error:
            raise _unreadable(queue, error) from error
        except AMQPChannelError as error:
            raise self._consuming.unavailable(f"cannot consume {queue!r}", error) from error

    async def _subscribe(self, queue: str, prefetch: int) -> RabbitMQSubscription:
        channel = await self._consuming.open_channel(confirms=False)
        subscription = RabbitMQSubscription(
            queue,
            channel,
            self._publisher,
            self._timeout,
            priority=self._next_priority(queue),
            depth=partial(self._depth, queue),
            silent=self._silent,
            connection_lost=self._consuming.lost,
        )
        try:
            await subscription.start(prefetch)
        except BaseException:
            await close(channel, self._timeout)
            raise
        self._subscriptions.add(subscription)
        return subscription

    def _next_priority(self, queue: str) -> int:
        """Return the priority of the next consumer of `queue`: above all that it may replace.

        What RabbitMQ gives to a consumer while that is cancelled comes back as redelivered, and
        nobody can say that nobody saw it. The one of the highest priority that has room gets it.
        """
        others = (each for each in self._subscriptions if each.alive and each.queue == queue)
        return max((each.priority + 1 for each in others), default=0)

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Publish persistently and mandatorily, and await the confirm."""
        await self._publisher.publish(to, message, delay)

    async def depth(self, station: Station | str) -> int:
        """Count the ready messages of the station's queue, or of the delay queues."""
        return sum([await self._depth(queue) for queue in self._publisher.queues(station)])

    async def receivers(self, station: Station | str) -> int:
        """Count the consumers of the station's queue.

        A quorum queue with one active consumer counts that one only.
        """
        return (await self._declare_passively(queue_name(station))).consumer_count or 0

    async def _depth(self, queue: str) -> int:
        return (await self._declare_passively(queue)).message_count or 0

    async def _declare_passively(self, queue: str) -> Queue.DeclareOk:
        """Declare `queue` passively, which counts its ready messages and its consumers."""
        check_name(queue)

        async def look(channel: AbstractChannel) -> Queue.DeclareOk:
            declared = await channel.declare_queue(queue, passive=True, timeout=self._timeout)
            return declared.declaration_result

        try:
            return await self._consuming.step(f"look at {queue!r}", look)
        except ChannelNotFoundEntity:
            self._declarer.no_queue(queue, "it was deleted, or never made")
        except AMQPChannelError as error:
            raise self._consuming.unavailable(f"cannot look at {queue!r}", error) from error

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        """Get messages and close the channel, which puts them back in order.

        Raises:
            QueueNotFoundError: there is no such queue.
            BrokerError: the queue has one active consumer, and another is it.
        """
        messages: list[Message] = []
        for queue in self._publisher.queues(station):
            messages += await self._peek(queue, limit - len(messages))
        return messages

    async def _peek(self, queue: str, limit: int) -> list[Message]:
        check_name(queue)
        messages: list[Message] = []
        async with self._consuming.channel() as channel:
            try:
                underlay = await channel.get_underlay_channel()
                while len(messages) < limit:
                    got = await run_to_completion(underlay.basic_get(queue, timeout=self._timeout))
                    if got.delivery_tag is None:
                        break
                    messages.append(from_amqp(Delivered.by_aiormq(got)))
            except ChannelNotFoundEntity:
                self._declarer.no_queue(queue, "it was deleted, or never made")
            except ChannelAccessRefused as error:
                raise _unreadable(queue, error) from error
            except ChannelLockedResource:
                return await self._peek_single(queue, limit)
            except Exception as error:
                if not is_lost(error):
                    raise
                raise self._consuming.unavailable(f"cannot look at {queue!r}", error) from error
        return messages

    async def _peek_single(self, queue: str, limit: int) -> list[Message]:
        async with self._consuming.channel() as channel:
            try:
                return await peek_as_consumer(
                    queue,
                    channel,
                    lambda prefetch: self.subscribe(queue, prefetch=prefetch),
                    limit=limit,
                    seconds=self._timeout,
                )
            except BrokerError:
                raise
            except Exception as error:
                if not is_lost(error):
                    raise
                raise self._consuming.unavailable(f"cannot look at {queue!r}", error) from error


def _unreadable(queue: str, error: ChannelAccessRefused) -> BrokerError:
    return BrokerError(
        f"RabbitMQ does not let us read {queue!r} ({error}): grant the read permission on it"
    )
