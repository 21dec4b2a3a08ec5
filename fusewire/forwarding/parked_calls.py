"""Store-and-forward of unary gRPC calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import grpc
import grpc.aio
from anyio.from_thread import start_blocking_portal

from fusewire._validation import SECONDS, SECONDS_OR_ZERO, check, instance_of
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.brokers import open_broker
from fusewire.errors import FusewireError, SettingsError, UnconfirmedError
from fusewire.forwarding.fallback import ParkFallback
from fusewire.forwarding.forwarder import Forwarder
from fusewire.forwarding.forwarding import Forwarding
from fusewire.forwarding.receipt import Receipt
from fusewire.forwarding.sending import check_guards, sender
from fusewire.parking import Happening, MessageEvent, ParkingConsumer
from fusewire.parking._former_keywords import policies
from fusewire.parking._settings import queues_of
from fusewire.parking.events import Listeners
from fusewire.parking.lanes import Dependencies
from fusewire.parking.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping
    from types import TracebackType

    from fusewire.brokers import Broker, Topology
    from fusewire.forwarding.call import StoredCall
    from fusewire.parking import RetryPolicy
    from fusewire.parking._former_keywords import FormerKeywords, Replay

_T = TypeVar("_T")

_MARGIN = 5.0
"""Seconds beyond its own limit that a thread waits for the store before it gives up on it."""


class ParkedCalls:
    """Stores unary calls that cannot be made now, and makes them when they can.

    Enter it with ``async with``, or with ``with`` for programs whose channels are sync: it then
    runs an event loop in a thread of its own. Give :meth:`park` as a fallback to the
    interceptors, and the guarded channel to :meth:`forward_to`, here or in another process.

    Args:
        address: ``amqp://`` or ``amqps://`` for RabbitMQ, several nodes of a cluster with commas
            between them; ``sqlite:///`` or a path for a file; or a broker.
        queue: names the queues: calls wait in ``<queue>.parked.<lane>``. They are made if absent.
        registry: where the channel's breakers are; the process's own by default.
        lanes: lane name to the breakers whose calls share it; by default all wait in ``other``.
        park_timeout: seconds that storing a call may take before the caller gets the original
            error.
        replay_timeout: seconds for one attempt of a replay, for calls that were made without a
            deadline.
        retry: when a replay that failed is tried again, and when its call is dead; by default
            ``RetryPolicy()``. Its `dead_on` is asked about the ``grpc.RpcError`` of a replay. Its
            `max_age` is the forwarder's and applies to all calls that it finds, unlike
            `expires_after` of :meth:`park`.
        replay: how stored calls are replayed after recovery; by default ``ReplayPolicy()``. All
            programs that use the queue give the same `scope`, also those that only park.
        exchange: name of the direct exchange of RabbitMQ's that calls are stored and moved through,
            made if absent; by default the default exchange, whose write permission is one on every
            queue. SQLite has none, and ignores it.
        shutdown_timeout: seconds that replays may still take on leaving.

    Raises:
        SettingsError: an argument cannot be right.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | Broker,
        *,
        queue: str,
        registry: BreakerRegistry | None = None,
        lanes: Mapping[str, Collection[str]] | None = None,
        park_timeout: float = 5.0,
        replay_timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        replay: Replay = None,
        exchange: str = "",
        shutdown_timeout: float = 30.0,
        **former: Unpack[FormerKeywords],
    ) -> None:
        self._retry, self._replay = policies("ParkedCalls", retry, replay, former)
        check("park_timeout", park_timeout, SECONDS)
        check("replay_timeout", replay_timeout, SECONDS)
        check("registry", registry, instance_of(BreakerRegistry).or_none)
        check("shutdown_timeout", shutdown_timeout, SECONDS_OR_ZERO)
        open_broker(address)  # refused here, and not when this object is entered
        self._address = address
        self._queue = queue
        self._lanes = lanes
        self._dependencies = Dependencies(None, lanes)
        self._registry = default_registry() if registry is None else registry
        self._park_timeout = park_timeout
        self._replay_timeout = replay_timeout
        self._exchange = exchange
        self._shutdown_timeout = shutdown_timeout
        self._topology = queues_of(
            queue,
            self._dependencies.lanes,
            retry=self._retry,
            replay=self._replay,
            exchange=exchange,
        )
        self._listeners = Listeners()
        self._broker: Broker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._pid = os.getpid()
        self._stack = AsyncExitStack()
        self._threads = ExitStack()
        self._forwarding: Forwarding | None = None

    @property
    def topology(self) -> Topology:
        """The queues, by name."""
        return self._topology

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Have `listener` called when a call is parked, replayed, delayed or dead.

        It is called on the event loop and must not block. Returns the function that removes it.
        """
        return self._listeners.add(listener)

    @overload
    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: Literal[True],
        at_most_once: Literal[False] = False,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback: ...

    @overload
    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: Literal[False] = False,
        at_most_once: Literal[True],
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback: ...

    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: bool = False,
        at_most_once: bool = False,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback:
        """Make a fallback that stores a call and answers it from the receipt.

        Exactly one of `idempotent` and `at_most_once` must be true.

        Args:
            reply: a function (request, receipt) that makes the response, PENDING for example; a
                coroutine function on asyncio channels only. It runs after the broker's confirm.
            idempotent: the server honors the operation id, which it gets as ``idempotency-key``
                from the first attempt on. Calls that were rejected and calls that failed are
                parked.
            at_most_once: it does not. Only calls that our own circuit rejected are parked, and a
                replay whose end is in doubt goes to the dead queue as ``ambiguous``.
            metadata: keys of metadata to store with the call; credentials are refused.
            expires_after: seconds after which the call is not made any more and is dead as
                ``expired``; never by default.
            serializer: makes bytes of a request that is no protobuf message.

        Raises:
            SettingsError: neither or both of the two are true, or a key may not be stored.
        """
        return ParkFallback(
            self,
            reply=reply,
            idempotent=idempotent,
            at_most_once=at_most_once,
            metadata=metadata,
            expires_after=expires_after,
            serializer=serializer,
        )

    def forward_to(self, channel: grpc.Channel | grpc.aio.Channel) -> Forwarding:
        """Begin to replay stored calls on `channel`.

        Give the guarded channel: its breakers say when to replay, and its interceptors add
        credentials. Its fallbacks are suppressed for replays. Several processes may forward from
        the same queues.

        Returns:
            the forwarding at work. It ends with this object; used as a context manager within the
            channel's, it ends before the channel is closed, so that no replay is cut off.

        Raises:
            SettingsError: it is no channel, an asyncio channel of another event loop, or one whose
                guard has another registry.
            RuntimeError: called before entering, or twice.
        """
        if self._broker is None or self._loop is None:
            raise RuntimeError("enter the ParkedCalls first, then forward")
        if self._forwarding is not None:
            raise RuntimeError("forward_to() was called before: one channel for one ParkedCalls")
        if isinstance(channel, grpc.aio.Channel) and self._thread != threading.get_ident():
            raise SettingsError(
                "channel must be a sync one, got an asyncio channel, because this ParkedCalls runs "
                "on an event loop of its own: enter it with `async with` on the channel's loop"
            )
        send = sender(channel)
        check_guards(channel, self._registry)
        handler = Forwarder(send, self._replay_timeout, self._end_forwarding)
        consumer = ParkingConsumer(
            self._broker,
            queue=self._queue,
            handler=handler,
            lanes=self._lanes,
            registry=self._registry,
            retry=self._retry,
            replay=self._replay,
            exchange=self._exchange,
            shutdown_timeout=self._shutdown_timeout,
        )
        consumer.add_listener(self._listeners.tell)
        self._forwarding = Forwarding(consumer, self._loop, self._thread)
        self._loop.call_soon_threadsafe(self._forwarding.begin)
        return self._forwarding

    def _end_forwarding(self) -> None:
        if self._forwarding is not None:
            self._forwarding.ask_to_end()

    async def __aenter__(self) -> Self:
        """Connect, and make the queues that are absent.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        broker = open_broker(self._address)
        async with AsyncExitStack() as stack:
            entered = broker if broker is self._address else await stack.enter_async_context(broker)
            await entered.create_queue(self._queue)
            await entered.prepare(self._topology)
            self._stack = stack.pop_all()
        self._broker = entered
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the forwarder, letting replays in hand finish, and disconnect."""
        try:
            if self._forwarding is not None:
                await self._forwarding.end()
        finally:
            self._broker = self._loop = self._forwarding = None
            await self._stack.aclose()

    def __enter__(self) -> Self:
        """Connect, on an event loop in a thread of its own.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
        """
        with ExitStack() as threads:
            portal = threads.enter_context(start_blocking_portal(name=f"fusewire {self._queue}"))
            threads.enter_context(portal.wrap_async_context_manager(self))
            self._threads = threads.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the forwarder, letting replays in hand finish, and disconnect."""
        self._threads.close()

    async def store(
        self, call: StoredCall, *, operation_id: str, breaker: str, expires_after: float | None
    ) -> Receipt:
        """Store a call; used by the fallback, on this object's event loop.

        Raises:
            BrokerError: it is not stored, or, as an UnconfirmedError, may not be.
        """
        if self._broker is None:
            raise FusewireError("this ParkedCalls is not entered, or was left: nothing is stored")
        now = time.time()
        record = Record(
            operation_id=operation_id,
            queue=self._queue,
            dependency=breaker,
            reason="circuit_open",
            times_parked=1,
            first_parked_at_ms=round(now * 1000),
            parked_at_ms=round(now * 1000),
            not_after_ms=None if expires_after is None else round((now + expires_after) * 1000),
            at_most_once=call.at_most_once,
        )
        lane = self._topology.parked(self._dependencies.lane(breaker))
        try:
            async with asyncio.timeout(self._park_timeout):
                message = record.write(call.message(operation_id, self._queue))
                await self._broker.publish(lane, message)
        except TimeoutError as error:
            raise UnconfirmedError(
                f"no confirmation within park_timeout={self._park_timeout:g} s: the call may or "
                "may not be parked"
            ) from error
        self._listeners.tell(
            MessageEvent(Happening.PARKED, operation_id, self._queue, breaker, record.reason)
        )
        return Receipt(operation_id, call.method, now)

    async def visit(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run `work` on this object's event loop; used by the fallback."""
        if self._home() is asyncio.get_running_loop():
            return await work()
        try:
            async with asyncio.timeout(self._park_timeout + _MARGIN):
                return await asyncio.wrap_future(self._submit(work))
        except TimeoutError as error:
            raise UnconfirmedError("the event loop of ParkedCalls does not answer") from error

    def visit_sync(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run `work` on this object's event loop and wait for it; used by the fallback."""
        self._home()
        if self._thread == threading.get_ident():
            raise FusewireError(
                "a sync gRPC call on the event loop's own thread cannot be parked, it would wait "
                "for itself: use grpc.aio there, or make the call in a worker thread"
            )
        future = self._submit(work)
        try:
            return future.result(self._park_timeout + _MARGIN)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise UnconfirmedError("the event loop of ParkedCalls does not answer") from error

    def _home(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            raise FusewireError(
                "this process was forked after ParkedCalls was entered, and has neither its thread "
                "nor its connections: enter a ParkedCalls in each process, after the fork"
            )
        if self._loop is None:
            raise FusewireError("this ParkedCalls is not entered, or was left: nothing is stored")
        return self._loop

    def _submit(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> concurrent.futures.Future[_T]:
        loop = self._home()
        coroutine = work()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as error:  # the loop was closed in this moment
            coroutine.close()
            raise FusewireError("this ParkedCalls was left: nothing is stored") from error
