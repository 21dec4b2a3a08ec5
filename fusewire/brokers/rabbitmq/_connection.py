"""One AMQP connection that is opened when it is needed, and again after it was lost.

aio-pika's plain connection is used, not its robust one: what has to be restored after a loss is
one consumer, which its reader restores by subscribing again, and a robust connection has been
seen to stay dead (aio-pika #231, #334, #588) and to let publishes wait forever while it is down
(#636, #556).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import aio_pika
from aio_pika.exceptions import AMQPChannelError, AMQPError

from fusewire.brokers.rabbitmq._addresses import shown, virtual_host
from fusewire.brokers.rabbitmq._reachability import Reachability, connecting
from fusewire.brokers.rabbitmq._workarounds.cancellation import (
    raising_connection_lost,
    run_to_completion,
    spawn,
    within,
)
from fusewire.brokers.rabbitmq._workarounds.close_ok import end_with_the_answer, write_in_order
from fusewire.brokers.rabbitmq._workarounds.frame_reader import LenientTransport
from fusewire.errors import BrokerUnavailableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection
    from yarl import URL

logger = logging.getLogger("fusewire.brokers.rabbitmq")

_T = TypeVar("_T")

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
"""Seconds until what was cut off is tried again; the wait doubles each time."""

_LOST = (AMQPError, OSError, RuntimeError)
"""What aio-pika raises when a connection or channel is gone (RuntimeError: a closed transport)."""


def is_lost(error: BaseException) -> bool:
    """Return whether `error` says that a connection or channel is gone.

    Of calls that wait when we close the connection ourselves, aiormq makes a bare Exception.
    """
    return isinstance(error, _LOST) or type(error) is Exception


class Link:
    """A connection for one purpose: publishing and consuming each have their own.

    A memory alarm blocks a connection that publishes; acknowledgements on it would wait too.

    Args:
        nodes: the addresses of one cluster's nodes, tried in turn from the one that was last good.
        purpose: what the connection is for, as RabbitMQ shows it.
        timeout: seconds to connect to one node, and for each step after.
        ssl_context: TLS settings for ``amqps://``.
        reachability: notified whether RabbitMQ can be reached; shared by a broker's connections.
    """

    def __init__(
        self,
        nodes: Sequence[URL],
        *,
        purpose: str,
        timeout: float,
        ssl_context: ssl.SSLContext | None,
        reachability: Reachability | None = None,
    ) -> None:
        self._nodes = nodes
        self._good = 0
        self._purpose = purpose
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._closed = 0
        self._reachability = reachability or Reachability(self.where)

    @property
    def where(self) -> str:
        """The addresses without credentials, for messages."""
        return ",".join(shown(node) for node in self._nodes)

    @property
    def virtual_host(self) -> str:
        """The virtual host's name."""
        return virtual_host(self._nodes[0])

    async def connection(self) -> AbstractConnection:
        """Return the open connection, made now if there is none.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached or refuses.
        """
        async with self._opening:
            if self._connection is not None and not self._connection.is_closed:
                transport = self._connection.transport
                if transport is not None and not transport.connection.is_closed:
                    return self._connection
            await self._discard()
            self._connection = await self._connect()
            return self._connection

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncIterator[AbstractChannel]:
        """Open a channel for the block, and close it after.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        channel = await self.open_channel(confirms=confirms)
        try:
            yield channel
        finally:
            await close(channel, self._timeout)

    async def step(self, what: str, step: Callable[[AbstractChannel], Awaitable[_T]]) -> _T:
        """Take a step that may be taken twice, on a channel of its own: see :meth:`persist`."""

        async def attempt() -> _T:
            async with self.channel() as channel:
                return await run_to_completion(step(channel))

        return await self.persist(what, attempt)

    async def persist(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Make `attempt`, and again while a lost connection cuts it off, within the time limit.

        A connection is also lost for a reason that passes soon: a quorum queue has a name before
        its process runs. If a client asks it something in between, RabbitMQ closes the connection
        (INTERNAL_ERROR, ``noproc``; seen on 3.10.8 when replicas start together).

        Args:
            what: what it does, for messages.
            attempt: may be made twice.

        Raises:
            AMQPChannelError: RabbitMQ refuses it.
            BrokerUnavailableError: RabbitMQ cannot be reached, or the connection is lost each time.
        """
        loop = asyncio.get_running_loop()
        deadline, wait, closed = loop.time() + self._timeout, _FIRST_WAIT, self._closed
        while True:
            await self.connection()  # if it cannot be reached, there is no second attempt
            try:
                return await attempt()
            except AMQPChannelError:
                raise
            except Exception as error:
                unopened = isinstance(error, BrokerUnavailableError)
                if not unopened and not is_lost(error):
                    raise
                if self._closed == closed and loop.time() + wait <= deadline:
                    logger.debug("RabbitMQ did not let us %s (%r): tried again", what, error)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _LONGEST_WAIT)
                    if self._closed == closed:  # else this would connect to what was left
                        continue
                if unopened:
                    raise
                raise self.unavailable(f"cannot {what}", error) from error

    async def open_channel(self, *, confirms: bool) -> AbstractChannel:
        """Open a channel that the caller closes.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        connection = await self.connection()
        # Without on_return_raises an unroutable mandatory publish returns as if it were stored.
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        opening = spawn(self._open(channel))
        try:
            with raising_connection_lost():
                await asyncio.shield(opening)
        except asyncio.CancelledError:
            spawn(self._close_opened(channel, opening))
            raise
        except ConnectionError as error:
            raise self._no_channel(error) from error
        return channel

    def _no_channel(self, error: BaseException) -> BrokerUnavailableError:
        return self.unavailable(f"RabbitMQ at {self.where} gave no channel", error)

    async def _open(self, channel: AbstractChannel) -> None:
        connecting.set(True)  # in a task of its own
        losses = self._reachability.losses
        try:
            with raising_connection_lost():
                await within(self._timeout, channel.initialize)
            end_with_the_answer(await channel.get_underlay_channel())
            if losses == self._reachability.losses:
                # It may have been silent, and the connection stayed open.
                self._reachability.reached()
        except BaseException as error:
            if channel.is_initialized:
                await close(channel, self._timeout)
            if not is_lost(error):
                raise
            raise self._no_channel(error) from error

    async def _close_opened(self, channel: AbstractChannel, opening: asyncio.Future[None]) -> None:
        with contextlib.suppress(BrokerUnavailableError):
            await opening
            await close(channel, self._timeout)

    async def version(self) -> tuple[int, ...]:
        """Return the server's version, for example ``(3, 10, 8)``.

        Raises:
            BrokerUnavailableError: RabbitMQ cannot be reached.
        """
        connection = await self.connection()
        transport = connection.transport
        properties = transport.connection.server_properties if transport is not None else {}
        version = str(properties.get("version", "0"))
        numbers = version.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split(".")
        return tuple(int(number) for number in numbers if number.isdigit())

    def lost(self, error: BaseException | None) -> bool:
        """Return whether `error` is the loss of the whole connection, which is logged then.

        A channel that RabbitMQ closed and a connection that is closed here do not count.
        """
        # CancelledError is what heartbeats that stay away make of it: see `run_to_completion`.
        if isinstance(error, AMQPChannelError):
            return False
        cancelled = isinstance(error, asyncio.CancelledError)
        if error is None or not (is_lost(error) or cancelled):
            return False
        if cancelled and self._connection is not None:
            # Or something cancelled the task with which aiormq reads a channel. RabbitMQ is not
            # told, and what it delivered on that channel would stay in flight.
            spawn(self._give_up(self._connection))
        return self._connection is None or self._reachability.lost(error)

    async def _give_up(self, connection: AbstractConnection) -> None:
        async with self._opening:
            if self._connection is connection:
                await self._discard()

    def unavailable(self, what: str, error: BaseException) -> BrokerUnavailableError:
        """Return the error for `what` that the loss of a channel or connection cut off."""
        unavailable = BrokerUnavailableError(f"{what}: {error!r}")
        unavailable.logged = self.lost(error)
        return unavailable

    async def close(self) -> None:
        """Close the connection. Never raises."""
        self._closed += 1
        async with self._opening:
            await self._discard()

    async def _connect(self) -> AbstractConnection:
        failed: list[BaseException] = []
        why: list[str] = []
        for step in range(len(self._nodes)):
            number = (self._good + step) % len(self._nodes)
            node = self._nodes[number]
            try:
                with raising_connection_lost():
                    connection = await self._connect_to(node)
            except _RefusedError as refused:
                why.append(f"{shown(node)}: {refused}")
            except BaseException as error:
                if not is_lost(error):  # TimeoutError is an OSError
                    raise
                failed.append(error)
                why.append(f"{shown(node)}: {str(error) or type(error).__name__}")
            else:
                self._good = number
                self._reachability.reached()
                return connection
        unavailable = BrokerUnavailableError(
            f"RabbitMQ cannot be reached ({'; '.join(why)}): check that it runs, the address, the "
            "virtual host and the credentials"
        )
        unavailable.logged = self._reachability.lost("; ".join(why))
        raise unavailable from (failed[0] if failed else None)

    async def _connect_to(self, node: URL) -> AbstractConnection:
        connection = _Connection(
            node,
            ssl_context=self._ssl_context,
            client_properties={"connection_name": f"fusewire {self._purpose}"},
        )
        connection.kwargs["transport_factory"] = transport = LenientTransport()
        ours = connecting.set(True)
        try:
            await within(self._timeout, connection.connect)
        except BaseException as error:
            await connection.close()
            if transport.refusal is not None and isinstance(error, Exception):
                # In RabbitMQ's words: the tracebacks of the client's would only hide them.
                raise _RefusedError(_in_words(node, transport.refusal)) from None
            raise
        finally:
            connecting.reset(ours)
        if connection.transport is not None:
            write_in_order(connection.transport.connection, self._timeout)
        return connection

    async def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Whatever it says, it is of no use any more.
            with contextlib.suppress(Exception), raising_connection_lost():
                await within(self._timeout, connection.close)


class _RefusedError(ConnectionError):
    """RabbitMQ answered, and said why it does not open the connection."""


def _in_words(node: URL, refusal: str) -> str:
    if refusal.startswith("NOT_ALLOWED"):
        return (
            f"the virtual host {virtual_host(node)!r} does not exist, or its user may not use it "
            f"({refusal})"
        )
    if refusal.startswith("ACCESS_REFUSED"):
        return f"the user or the password is wrong ({refusal})"
    return refusal


class _Connection(aio_pika.Connection):
    """A connection that :class:`Link` closes, and nobody else."""

    def __del__(self) -> None:
        """Do nothing.

        aio-pika (10.2.1) begins to close a connection that is collected and not known to be closed,
        as after a close that failed: in whatever thread and on whatever event loop that happens,
        and where there is none, with a coroutine that nobody awaits.
        """


async def close(channel: AbstractChannel, timeout: float) -> None:  # noqa: ASYNC109 - a limit, not a scope
    """Close a channel within `timeout` seconds. Never raises: a lost one is closed already."""
    with contextlib.suppress(Exception):  # whatever it says, it is of no use any more
        await run_to_completion(within(timeout, channel.close))
