"""What parking asks of a broker, in words of parking and not of AMQP.

A broker stores messages in named queues and gives each to one receiver at a time. Its one promise
is about :meth:`Delivery.move` and :meth:`Broker.publish`: when they return, the message is stored
durably in the target; when they raise, it is still where it was, or, after an
:class:`~fusewire.errors.UnconfirmedError` or a crash, it may be in both. It is never in neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Topology


class Delivery(Protocol):
    """One message in hand. Settle it once: :meth:`done` or :meth:`move`, or let it go back."""

    @property
    def message(self) -> Message:
        """The message as it was stored."""

    @property
    def redelivered(self) -> bool:
        """Whether the broker gave it to somebody before; what became of that is not known."""

    @property
    def returned(self) -> int:
        """How often it has come back unsettled; 1 for any number, where that is not counted.

        RabbitMQ's quorum queues count every return, and may drop the message at a limit. The
        embedded broker counts only the receivers that died with it, and drops nothing.
        """

    @property
    def counts_returns(self) -> bool:
        """Whether its queue counts how often a message goes back: a classic queue does not."""

    @property
    def lost(self) -> bool:
        """Whether it is known to be the broker's again, so that work on it is in vain."""

    async def done(self) -> None:
        """Take the message off its queue for good.

        Raises:
            DeliveryLostError: the connection it came on is gone; the broker delivers it again.
        """

    async def move(self, queue: str, message: Message) -> None:
        """Store `message` durably in `queue`, then take the original off its own queue.

        Raises:
            MoveRefusedError: `queue` is missing or full; the original is still in hand.
            BrokerUnavailableError: not stored; the original is still in hand, or lost to the
                broker.
            UnconfirmedError: it may have been stored; the original is still in hand.
            DeliveryLostError: stored, but the original could not be taken off: a duplicate will
                come.
        """


class Subscription(Protocol):
    """A stream of deliveries from one queue."""

    async def receive(self) -> Delivery:
        """Wait for the next message.

        Raises:
            BrokerUnavailableError: the connection is lost. All deliveries in hand are the
                broker's again.
            QueueNotFoundError: the queue is gone.
        """

    async def quiesce(self) -> Sequence[Delivery]:
        """Take no further message into hand.

        Returns:
            what is in hand, was not received yet, and would come back as redelivered.
        """

    async def release(self) -> None:
        """Give back all that is in hand and not settled, in order, and end. Never raises."""


class Broker(Protocol):
    """Durable queues. Enter it before use; leaving it gives back what is in hand."""

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailableError: it cannot be reached; the message says where and what to check.
        """

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect."""

    async def prepare(self, topology: Topology) -> None:
        """Check that the source queue exists, and make the queues derived from it that do not.

        Raises:
            QueueNotFoundError: the source queue does not exist.
            BrokerError: a derived queue is absent and may not be made.
        """

    async def create_queue(self, queue: str, *, expires: float | None = None) -> None:
        """Make a durable queue, if it does not exist yet.

        Args:
            queue: its name.
            expires: seconds without use after which the broker may delete it; never by default.

        Raises:
            BrokerError: it may not be made.
        """

    async def delete_queue(self, queue: str) -> None:
        """Delete a queue that holds nothing, if it exists.

        Raises:
            BrokerError: it could not be deleted.
        """

    async def subscribe(self, queue: str, *, prefetch: int) -> Subscription:
        """Begin to receive from `queue`, with at most `prefetch` messages in hand.

        Raises:
            QueueNotFoundError: there is no such queue.
            BrokerUnavailableError: the broker cannot be reached.
        """

    async def publish(self, queue: str, message: Message) -> None:
        """Store `message` durably in `queue`.

        Raises:
            MoveRefusedError: `queue` is missing or full; not stored.
            BrokerUnavailableError: not stored.
            UnconfirmedError: it may have been stored.
        """

    async def depth(self, queue: str) -> int:
        """Count the messages that wait in `queue`, without those in a receiver's hand.

        Raises:
            QueueNotFoundError: there is no such queue.
        """

    async def peek(self, queue: str, *, limit: int) -> list[Message]:
        """Read up to `limit` waiting messages, oldest first, and leave them where they are.

        Raises:
            QueueNotFoundError: there is no such queue.
        """
