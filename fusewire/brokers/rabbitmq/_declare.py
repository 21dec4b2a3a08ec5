"""Looking for queues and exchanges, and making those that are ours and absent.

Each is looked for passively first: declared again with other arguments than it was made with (by a
policy's author, by an older version), it would refuse and close the channel. And where everything
was made beforehand, an application needs the permission to configure marks only.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from aio_pika.exceptions import AMQPChannelError, ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource
from pamqp.constants import DOMAIN_REGEX

from fusewire._validation import invalid
from fusewire.brokers.rabbitmq._arguments import expiring_arguments, kept_arguments, queue_arguments
from fusewire.brokers.rabbitmq._queue_type import STREAM, queue_type
from fusewire.brokers.rabbitmq._single_active_consumer import is_single
from fusewire.errors import (
    BrokerError,
    QueueNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractChannel
    from pamqp.common import FieldTable

    from fusewire.brokers.rabbitmq._connection import Link
    from fusewire.brokers.rabbitmq._layout import Layout

logger = logging.getLogger("fusewire.brokers.rabbitmq")

_MAX_NAME = 255  # bytes: AMQP's short string
_RESERVED = "amq."


class Declarer:
    """Looks for queues, exchanges and bindings over `link`, and makes ours.

    Args:
        link: the connection; every step has a channel of its own, which a refusal closes.
        timeout: seconds that one step may take.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def prepare(self, layout: Layout) -> None:
        """Check the source queue, and make what is absent of the exchange and the derived queues.

        Raises:
            QueueNotFoundError: the source queue does not exist.
            BrokerError: something of ours is absent and may not be made; or a lane that is to have
                one active consumer was made without; or the source queue is a stream, or exclusive
                to another connection.
            SettingsError: a name is not of the user's choice, or cannot be written.
        """
        if layout.exchange:
            check_name(layout.exchange, "exchange")
        if layout.source.startswith(_RESERVED):
            raise invalid(
                "queue",
                f"a name that does not begin with {_RESERVED!r}",
                layout.source,
                "such names are RabbitMQ's own, for queues that were declared without a name and "
                "usually go with their connection; declare a durable queue, give it a name, and "
                "publish to it",
            )
        if not await self.exists(layout.source):
            self.no_queue(
                layout.source,
                "a consumer never makes the queue that it consumes: declare it, or check the name "
                "and the virtual host",
            )
        if layout.exchange and not await self._exchange_exists(layout.exchange):
            await self._make_exchange(layout.exchange)
        await self.refuse_stream(layout.source)
        arguments = queue_arguments(layout, await self._link.version())
        for queue, its_arguments in arguments.items():
            if not await self.exists(queue):
                await self._make(queue, its_arguments)
            elif its_arguments.get("x-single-active-consumer"):
                await self._check_single(queue)
        if layout.exchange:
            for queue in layout.queues:
                await self._bind(queue, layout.exchange)

    async def create_queue(self, queue: str) -> None:
        """Make a quorum queue, if there is none of the name."""
        if not await self.exists(queue):
            await self._make(queue, kept_arguments(await self._link.version()))

    async def create_expiring_queue(self, queue: str, seconds: float) -> None:
        """Make a classic queue, if there is none, which RabbitMQ deletes if it is not used."""
        if not await self.exists(queue):
            await self._make(queue, expiring_arguments(seconds))

    async def delete_queue(self, queue: str) -> None:
        """Delete a classic queue that holds nothing; quorum queues cannot be deleted so.

        Raises:
            BrokerError: RabbitMQ refuses it.
        """
        check_name(queue)
        try:
            await self._link.step(
                f"delete {queue!r}",
                lambda channel: channel.queue_delete(queue, if_empty=True, timeout=self._timeout),
            )
        except ChannelNotFoundEntity:
            return  # before RabbitMQ 3.2, and while the node that has it is down
        except AMQPChannelError as error:
            raise BrokerError(
                f"RabbitMQ does not let us delete the queue {queue!r} ({error}): grant the "
                "permissions that `fusewire topology` prints"
            ) from error

    async def exists(self, queue: str) -> bool:
        """Return whether there is a queue of the name."""
        check_name(queue)
        return await self._found(
            queue, lambda channel: channel.declare_queue(queue, passive=True, timeout=self._timeout)
        )

    async def type_of(self, queue: str) -> str | None:
        """Return the type of a queue that exists; None where RabbitMQ does not say."""
        look = partial(queue_type, queue=queue, limit=self._timeout)
        try:
            return await self._link.step(f"look at {queue!r}", look)
        except ChannelNotFoundEntity:
            self.no_queue(queue, "it was deleted, or never made")
        except AMQPChannelError as error:
            raise _not_shown(queue, error) from error

    async def refuse_stream(self, queue: str) -> None:
        """Check that a queue is not a stream, which keeps what is acknowledged.

        Raises:
            BrokerError: it is a stream.
            QueueNotFoundError: there is no such queue.
        """
        check_name(queue)
        if await self.type_of(queue) == STREAM:
            raise BrokerError(
                f"{queue!r} is a stream, and a stream cannot be consumed as a queue: it remembers "
                "no acknowledgements, so what is published while no consumer is subscribed would "
                "never be handled; publish to a quorum queue instead, or move messages to one"
            )

    def no_queue(self, queue: str, remedy: str) -> NoReturn:
        """Say that there is no such queue, and what to do."""
        raise QueueNotFoundError(
            f"there is no queue {queue!r} on RabbitMQ at {self._link.where}: {remedy}"
        ) from None

    async def _exchange_exists(self, exchange: str) -> bool:
        return await self._found(
            exchange,
            lambda channel: channel.declare_exchange(exchange, passive=True, timeout=self._timeout),
        )

    async def _found(self, name: str, look: Callable[[AbstractChannel], Awaitable[object]]) -> bool:
        try:
            await self._link.step(f"look at {name!r}", look)
        except ChannelNotFoundEntity:
            return False
        except AMQPChannelError as error:
            raise _not_shown(name, error) from error
        return True

    async def _make(self, queue: str, arguments: FieldTable) -> None:
        try:
            await self._link.step(
                f"make {queue!r}",
                lambda channel: channel.declare_queue(
                    queue, durable=True, arguments=arguments, timeout=self._timeout
                ),
            )
        except AMQPChannelError as error:
            raise BrokerError(
                f"RabbitMQ does not let us make the queue {queue!r} ({error}): grant the "
                "permissions that `fusewire topology` prints, or make it with the arguments "
                f"{arguments!r}"
            ) from error

    async def _check_single(self, queue: str) -> None:
        look = partial(is_single, queue=queue, limit=self._timeout)
        if not await self._link.step(f"look at {queue!r}", look):
            raise BrokerError(
                f"the queue {queue!r} was made without x-single-active-consumer, so several "
                "replicas would replay it together: empty it with a ReplayPolicy whose scope is "
                "'replica' and delete it, and it is created again"
            )

    async def _make_exchange(self, exchange: str) -> None:
        try:
            await self._link.step(
                f"make {exchange!r}",
                lambda channel: channel.declare_exchange(
                    exchange, "direct", durable=True, timeout=self._timeout
                ),
            )
        except AMQPChannelError as error:
            raise BrokerError(
                f"RabbitMQ does not let us make the exchange {exchange!r} ({error}): grant the "
                "permissions that `fusewire topology` prints, or make it, direct and durable"
            ) from error

    async def _bind(self, queue: str, exchange: str) -> None:
        """Bind `queue` by its name. AMQP cannot look for a binding; binding twice is once."""

        async def bind(channel: AbstractChannel) -> None:
            bound = await channel.get_queue(queue, ensure=False)
            await bound.bind(exchange, queue, timeout=self._timeout)

        try:
            await self._link.step(f"bind {queue!r} to {exchange!r}", bind)
        except ChannelAccessRefused:
            # Where applications may not declare, it was bound beforehand. Where it was not, the
            # first move is returned, and says so.
            logger.info(
                "RabbitMQ does not let us bind %r to %r: taken for bound already", queue, exchange
            )
        except AMQPChannelError as error:
            raise BrokerError(f"cannot bind {queue!r} to {exchange!r}: {error}") from error


def _not_shown(name: str, error: AMQPChannelError) -> BrokerError:
    if isinstance(error, ChannelLockedResource):
        return BrokerError(
            f"the queue {name!r} is exclusive to the connection that declared it: nobody else can "
            "consume it, and it goes with that connection and all that is in it; declare it "
            "durable and not exclusive"
        )
    return BrokerError(f"RabbitMQ does not let us look at {name!r}: {error}")


def check_name(name: str, kind: str = "queue") -> None:
    """Check a name of a queue or an exchange.

    Raises:
        SettingsError: the AMQP client does not take it.
    """
    # pamqp raises ValueError without saying for which name, and in a task of the client's own.
    if not DOMAIN_REGEX[f"{kind}-name"].fullmatch(name) or len(name.encode()) > _MAX_NAME:
        raise invalid(
            kind,
            f"at most {_MAX_NAME} letters, digits, spaces and - _ . : @ # , / +, which the AMQP "
            "client takes",
            name,
        )
