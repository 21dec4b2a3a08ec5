"""What parking asks of a broker, in words of parking. ``docs/write-a-broker.md`` explains it.

A broker stores messages at stations, and gives each to one receiver at a time. Its one promise is
about :meth:`Delivery.move` and :meth:`Broker.publish`: when they return, the message is stored in
its new station; when they raise, it is still where it was, or, after an
:class:`~fusewire.errors.UnconfirmedError`, a cancellation or a crash, it may be in both. It is
never in neither.

Wherever a station is asked for, a name means the source queue of that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from fusewire.brokers.message import Message  # noqa: TC001 - see fusewire/_public.py
from fusewire.brokers.topology import Station  # noqa: TC001 - see fusewire/_public.py

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from fusewire.brokers.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a broker can do. An adapter says what it cannot; the conformance kit checks the rest.

    Attributes:
        durable: whether messages outlive the process, and a crash of it. A consumer on a broker
            that is not durable logs a warning when it starts.
        any_delay: whether every delay is kept. Otherwise only those in :attr:`Topology.delays`
            are, and another one may end early: parking delays the message again.
        single: whether :attr:`Topology.single` is kept. Otherwise a consumer that is made with
            a ``ReplayPolicy`` whose scope is ``"cluster"`` is refused.
        searchable: whether it is a :class:`SearchableBroker`.
        system: what traces call it: its product's name in lower case, ``rabbitmq`` for example.
    """

    durable: bool = True
    any_delay: bool = True
    single: bool = True
    searchable: bool = False  # the protocol grew by it, and adapters that are there do not know it
    system: str = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMessage:
    """A message that was looked for, as it was at that moment.

    Attributes:
        station: where it is.
        message: the message as it is stored.
        in_flight: whether somebody has it.
        redelivered: whether somebody had it before; what became of that is not known.
        place: the adapter's own, by which it recognizes the message where it was found.
    """

    station: Station
    message: Message
    in_flight: bool
    redelivered: bool
    place: object


class Delivery(Protocol):
    """One message in flight. Settle it once, by :meth:`done` or :meth:`move`, or let it go back."""

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
        embedded broker counts only the receivers that died with it, and drops nothing: there, a
        message may be redelivered and have returned 0 times.
        """

    @property
    def counts_returns(self) -> bool:
        """Whether :attr:`returned` is a count, and not just 0 or 1."""

    @property
    def lost(self) -> bool:
        """Whether it is known to be the broker's again, so that work on it is in vain.

        Settling it does not make this true.
        """

    async def done(self) -> None:
        """Remove the message for good.

        Raises:
            DeliveryLostError: it is the broker's again, which delivers it again.
        """

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Store `message` in the station `to`, then remove the original from its own station.

        Args:
            to: where it goes.
            message: what is stored in its place: mostly the same one with other headers.
            delay: seconds before which nobody receives it; only where `to` is the source of a
                topology that :meth:`Broker.prepare` was called with.

        Raises:
            MoveRefusedError: `to` does not exist or is full; the original is still in flight.
            BrokerUnavailableError: not stored; the original is still in flight, or lost to the
                broker.
            UnconfirmedError: it may have been stored; the original is still in flight.
            DeliveryLostError: the original is the broker's again and will be delivered again. If
                `message` was stored before that was known, there are two copies.
            ValueError: there is a delay, and `to` is not a source.
        """


class Subscription(Protocol):
    """A stream of deliveries from one station."""

    async def receive(self) -> Delivery:
        """Wait for the next message.

        Raises:
            BrokerUnavailableError: the connection is lost. All deliveries in flight are the
                broker's again.
            QueueNotFoundError: the station is gone.
            BrokerError: nothing comes any more, although messages wait: subscribe again.
        """

    async def quiesce(self) -> Sequence[Delivery]:
        """Take no further message into flight, and requeue what was not received.

        The caller receives no more. It settles what must not come back, and releases the rest; or
        it works on all that is in flight, for as long as that takes, and releases then. Others
        receive meanwhile. Of a lane with one active receiver at a time, another is the active one.

        Returns:
            what is in flight, was not received yet, and would come back as redelivered: that is not
            requeued.
        """

    async def release(self) -> None:
        """Give back all that is in flight and not settled, in order, and end. Never raises."""


class Broker(Protocol):
    """Stations of messages. Enter it before use; leaving it gives back what is in flight.

    The code that makes it enters it. Fusewire enters those that it opens from an address, and uses
    the others as they are.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. It is asked before the broker is entered, too."""

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
        """Give back what is in flight, end the subscriptions, and disconnect."""

    async def create_queue(self, queue: str) -> None:
        """Make a source queue, if it does not exist yet.

        Raises:
            BrokerError: it may not be made.
        """

    async def prepare(self, topology: Topology) -> None:
        """Check that the source queue exists, and make its other stations that do not.

        Each object is prepared before it delays anything. Stations that `topology` does not have
        stay as they are.

        Raises:
            QueueNotFoundError: the source queue does not exist.
            BrokerError: a station is absent and may not be made, or a lane cannot be made single.
        """

    async def subscribe(self, station: Station | str, *, prefetch: int) -> Subscription:
        """Begin to receive from `station`, with at most `prefetch` messages in flight, 1 or more.

        Nobody asks for a delayed station.

        Raises:
            QueueNotFoundError: there is no such station.
            BrokerUnavailableError: the broker cannot be reached.
        """

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Store `message` in the station `to`.

        Args:
            to: where it goes.
            message: what is stored.
            delay: seconds before which nobody receives it; only where `to` is the source of a
                topology that :meth:`prepare` was called with.

        Raises:
            MoveRefusedError: `to` does not exist or is full; not stored.
            BrokerUnavailableError: not stored.
            UnconfirmedError: it may have been stored.
            ValueError: there is a delay, and `to` is not a source.
        """

    async def depth(self, station: Station | str) -> int:
        """Count the messages that wait in `station`, without those in flight or delayed.

        Raises:
            QueueNotFoundError: there is no such station.
        """

    async def receivers(self, station: Station | str) -> int:
        """Count the subscriptions to `station`, those of other processes included.

        One that was released does not count, nor one whose process died. One that was quiesced may
        count until it is released. Where a station has a single receiver, that one counts, and
        those that wait to take over may. Nobody asks for a delayed station.

        The more replicas there are, the more carefully each begins to replay. So an adapter that is
        not sure rounds up.

        Raises:
            QueueNotFoundError: there is no such station.
            BrokerUnavailableError: the broker cannot be reached.
        """

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        """Read up to `limit` waiting messages, oldest first, and leave them where they are.

        Raises:
            QueueNotFoundError: there is no such station.
        """

    async def mark(self, queue: str, mark: str) -> None:
        """Note `mark` beside the source queue `queue`; to note it again changes nothing.

        A mark outlives a process that is killed right after this returns, as far as messages do. A
        broker may forget one that is a day old.

        Args:
            queue: the name of a source queue.
            mark: letters, digits and dots.

        Raises:
            BrokerError: it is not noted.
        """

    async def unmark(self, queue: str, mark: str) -> None:
        """Forget a mark, if it is noted.

        Raises:
            BrokerError: it may be noted still.
        """

    async def is_marked(self, queue: str, mark: str) -> bool:
        """Return whether a mark is noted.

        Raises:
            BrokerError: that could not be found out.
        """


class SearchableBroker(Broker, Protocol):
    """A broker that finds a message by its id, and can remove it while nobody has it.

    It says so by :attr:`Capabilities.searchable`. A queue cannot be searched, so not every broker
    can do this; what asks for it does without where it is missing.
    """

    async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        """Return the messages of an id at one moment: those that wait, are delayed, or in flight.

        It may take as long as it takes to read all that is stored.

        Args:
            topology: whose stations are searched, the delayed one too.
            message_id: the :attr:`Message.message_id`.

        Raises:
            QueueNotFoundError: the source queue does not exist.
            BrokerUnavailableError: the broker cannot be reached.
        """

    async def withdraw(
        self, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None = None
    ) -> bool:
        """Remove messages that wait or are delayed, all or none, in one step.

        Args:
            found: which ones, as :meth:`find` has returned them.
            instead: what is stored in the same step, and where.

        Returns:
            whether they are removed. Else nothing was changed: one of them is in flight, or was
            received or moved since it was found.

        Raises:
            MoveRefusedError: `instead` cannot be stored there; nothing was changed.
            BrokerUnavailableError: nothing was changed.
            UnconfirmedError: they may be removed.
        """
