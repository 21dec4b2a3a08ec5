"""Deliveries from one queue, over one channel of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire.brokers.rabbitmq._acknowledging import Acknowledger
from fusewire.brokers.rabbitmq._codec import DELIVERY_COUNT, from_amqp
from fusewire.brokers.rabbitmq._connection import close, is_lost
from fusewire.brokers.rabbitmq._workarounds.cancellation import run_to_completion
from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import Delivered
from fusewire.brokers.rabbitmq._workarounds.frame_reader import take_directly
from fusewire.errors import BrokerError, BrokerUnavailableError, DeliveryLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiormq.abc
    from aio_pika.abc import AbstractChannel

    from fusewire.brokers.message import Message
    from fusewire.brokers.rabbitmq._publisher import Publisher
    from fusewire.brokers.topology import Station

logger = logging.getLogger("fusewire.brokers.rabbitmq")

_LOOK = 10.0
"""Seconds between looks whether what waits in the queue still comes."""

_LONGEST_WAIT = 600.0
"""Seconds at most until a watch that has failed begins again."""

_LOOKS = 3
"""Looks in a row that see messages wait and none come, before the subscription is given up."""

_FILLS_WITHIN = 0.5
"""Seconds after an acknowledgement within which the message that takes its place has come."""

_FILL_POLL = 0.005
"""Seconds between looks whether it has."""

_DISPATCH_STEPS = 10
"""Steps of the event loop within which what arrived before the consumer ended is delivered."""


class RabbitMQDelivery:
    """One AMQP delivery in flight."""

    __slots__ = (
        "_acknowledger",
        "_channel",
        "_counted",
        "_publisher",
        "_tag",
        "message",
        "redelivered",
    )

    def __init__(
        self,
        delivered: Delivered,
        channel: aiormq.abc.AbstractChannel,
        publisher: Publisher,
        acknowledger: Acknowledger,
    ) -> None:
        self.message = from_amqp(delivered)
        self.redelivered = delivered.redelivered
        self._channel = channel
        self._tag = delivered.tag
        self._counted = (delivered.properties.headers or {}).get(DELIVERY_COUNT)
        self._publisher = publisher
        self._acknowledger = acknowledger

    @property
    def returned(self) -> int:
        """How often it has gone back, which a delivery limit of the queue's may end.

        A quorum queue counts. Of others, and of a first delivery, the header is the publisher's.
        """
        if not self.redelivered:
            return 0
        return max(self._counted, 1) if isinstance(self._counted, int) else 1

    @property
    def counts_returns(self) -> bool:
        """Whether its queue counts returns; else `returned` is 1 for any number of them."""
        return isinstance(self._counted, int)

    @property
    def lost(self) -> bool:
        """Whether its channel is gone."""
        return self._channel.is_closed

    async def done(self) -> None:
        """Acknowledge it on the channel that delivered it."""
        try:
            await self._acknowledger.acknowledge(self._tag)
        except Exception as error:
            if not is_lost(error):
                raise
            raise DeliveryLostError(
                f"message {self.message.message_id!r} could not be acknowledged: its channel is "
                "gone, and RabbitMQ delivers it again"
            ) from error

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Publish, await the confirm, then acknowledge: no other order is safe."""
        if self.lost:
            raise DeliveryLostError(
                f"message {self.message.message_id!r} was not moved: its channel is gone, and "
                "RabbitMQ delivers it again"
            )
        await self._publisher.publish(to, message, delay)
        await self.done()


class RabbitMQSubscription:
    """A consumer; its deliveries are buffered up to the prefetch and read by :meth:`receive`."""

    def __init__(
        self,
        queue: str,
        channel: AbstractChannel,
        publisher: Publisher,
        timeout: float,
        *,
        priority: int = 0,
        depth: Callable[[], Awaitable[int]],
        silent: set[str],
        connection_lost: Callable[[BaseException | None], bool],
    ) -> None:
        self.queue = queue
        self.priority = priority
        self._channel = channel
        self._publisher = publisher
        self._timeout = timeout
        self._depth = depth
        self._silent = silent  # queues of which nothing is said if nothing comes; shared
        self._connection_lost = connection_lost
        self._delivered = 0
        self._watching: Background | None = None
        self._arrived: deque[RabbitMQDelivery] = deque()
        self._news = asyncio.Event()  # something has arrived, or the subscription is lost
        self._lost: BrokerError | None = None
        self._cancel: Callable[[], Awaitable[object]] | None = None
        self._acknowledger: Acknowledger | None = None
        self._prefetch = 0

    async def start(self, prefetch: int) -> None:
        """Consume. Raises what aio-pika raises; the caller owns the channel until this returns."""
        # aio-pika keeps callbacks by weak references in places (#536): bound methods of an object
        # that the caller keeps, registered on a channel that this object keeps, live as long as
        # is needed.
        self._channel.close_callbacks.add(self._on_close)
        underlay = await self._channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._on_cancel)
        acknowledger = self._acknowledger = Acknowledger(underlay, self._timeout)
        self._prefetch = prefetch

        def take(delivered: Delivered) -> None:
            delivery = RabbitMQDelivery(delivered, underlay, self._publisher, acknowledger)
            self._delivered += 1
            self._arrived.append(delivery)
            self._news.set()

        async def consumer(message: aiormq.abc.DeliveredMessage) -> None:
            take(Delivered.by_aiormq(message))

        await run_to_completion(underlay.basic_qos(prefetch_count=prefetch, timeout=self._timeout))
        tag = f"fusewire-{uuid.uuid4().hex}"
        take_directly(underlay, tag, take)
        await run_to_completion(
            underlay.basic_consume(
                self.queue,
                consumer,
                arguments={"x-priority": self.priority} if self.priority else None,
                consumer_tag=tag,
                timeout=self._timeout,
            )
        )
        self._cancel = partial(underlay.basic_cancel, tag, timeout=self._timeout)
        self._watching = Background(
            partial(self._watch, acknowledger),
            name=f"the watch of {self.queue!r}",
            logger=logger,
            first_wait=_LOOK,
            longest_wait=_LONGEST_WAIT,
        )

    @property
    def alive(self) -> bool:
        """Whether RabbitMQ may have it still."""
        return self._lost is None

    async def receive(self) -> RabbitMQDelivery:
        """Wait for the next delivery."""
        # What is still buffered when the channel is lost is the broker's again, so the loss goes
        # first.
        while self._lost is None:
            if self._arrived:
                return self._arrived.popleft()
            self._news.clear()
            await self._news.wait()
        raise self._lost

    async def quiesce(self) -> Sequence[RabbitMQDelivery]:
        """Cancel the consumer, and return what was delivered and not received.

        A quorum queue takes back what it gave out and could not deliver before its consumer was
        cancelled. That would come again as redelivered, although nobody has seen it. It gives out
        nothing while as many are in flight as may be, and nothing is acknowledged.
        """
        if self._watching is not None:
            self._watching.cancel()
        acknowledger = self._acknowledger
        if self._cancel is not None and acknowledger is not None and self._lost is None:
            acknowledger.hold()
            try:
                with contextlib.suppress(Exception):  # lost: all of it is the broker's again
                    await self._until_full(acknowledger)
                    await run_to_completion(self._cancel())
            finally:
                acknowledger.resume()
        for _ in range(_DISPATCH_STEPS):
            await asyncio.sleep(0)
        left = list(self._arrived) if self._lost is None else []
        self._arrived.clear()
        return left

    async def _until_full(self, acknowledger: Acknowledger) -> None:
        """Wait until the places of what was acknowledged are taken, or nothing is left for them."""
        loop = asyncio.get_running_loop()
        while self._lost is None and self._delivered - acknowledger.written < self._prefetch:
            late = loop.time() - acknowledger.written_at >= _FILLS_WITHIN
            if late or await self._depth() == 0:
                return
            await asyncio.sleep(_FILL_POLL)

    async def release(self) -> None:
        """Close the channel without cancelling first, which gives everything back in order."""
        self._end(BrokerUnavailableError(f"the subscription to {self.queue!r} was released"))
        if self._watching is not None:
            self._watching.cancel()
        await close(self._channel, self._timeout)

    async def _watch(self, acknowledger: Acknowledger) -> None:
        """End the subscription when messages wait, nothing is in flight, and none comes.

        A quorum queue that was deleted and made again within some milliseconds keeps the consumer,
        does not notify it, and sends it nothing: seen on RabbitMQ 3.10.8. So does one that has one
        active consumer at a time, if another is it. The two cannot be told apart: RabbitMQ counts
        one consumer in both. To subscribe again does no harm.
        """
        stalled = waiting = delivered = 0
        while True:
            await asyncio.sleep(_LOOK)
            if self._lost is not None:  # to look would connect a broker again that was left
                return
            before, waiting = waiting, 0
            if self._delivered == delivered == acknowledger.settled:
                with contextlib.suppress(BrokerError):  # the next look, or the loss, shows more
                    waiting = await self._depth()
            delivered = self._delivered
            stalled = stalled + 1 if waiting >= max(before, 1) else 0
            if stalled == _LOOKS:
                # Who waits for its turn comes here all the time, and nothing is wrong.
                level = logging.DEBUG if self.queue in self._silent else logging.INFO
                self._silent.add(self.queue)
                logger.log(
                    level,
                    "nothing comes from %r, where messages wait: another consumer is the active "
                    "one, or the queue was made again; subscribing again (this is said once)",
                    self.queue,
                )
                stopped = BrokerError(f"nothing comes from {self.queue!r} any more")
                stopped.logged = True
                self._end(stopped)
                return

    def _on_close(self, _channel: object, error: BaseException | None) -> None:
        closed = BrokerUnavailableError(
            f"the channel that consumed {self.queue!r} was closed: {error}"
        )
        closed.logged = self._connection_lost(error)
        self._end(closed)

    def _on_cancel(self, _frame: object) -> None:
        logger.warning(
            "RabbitMQ cancelled the consumer of %r: deleted, or its leader moved", self.queue
        )
        self._end(BrokerUnavailableError(f"RabbitMQ cancelled the consumer of {self.queue!r}"))

    def _end(self, error: BrokerError) -> None:
        if self._lost is None:
            self._lost = error
            self._news.set()
