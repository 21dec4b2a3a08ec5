"""Store-and-forward of unary gRPC calls."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from contextlib import AsyncExitStack, ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, Unpack

from anyio.from_thread import start_blocking_portal

from fusewire._validation import SECONDS, SECONDS_OR_ZERO, check, instance_of
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.brokers import open_broker
from fusewire.forwarding._call_codec import CallCodec
from fusewire.forwarding._encryption import Encryption
from fusewire.forwarding._entering import BrokerEntry
from fusewire.forwarding._finding import Finding
from fusewire.forwarding._forwarding import Forwarding
from fusewire.forwarding._limits import Limits
from fusewire.forwarding._methods import check_methods
from fusewire.forwarding._outcomes import CallReplies, OutcomeReading
from fusewire.forwarding._park_log import ParkLog
from fusewire.forwarding._queueing import Queueing
from fusewire.forwarding._search import CallSearch
from fusewire.forwarding._store import CallStore
from fusewire.forwarding._store_status import StoreStatus
from fusewire.parking import ReplayPolicy
from fusewire.parking.internal import (
    Dependencies,
    LiveCalls,
    Settlements,
    Tracing,
    policies,
    queues_of,
    taken_over,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from types import TracebackType

    import grpc
    import grpc.aio

    from fusewire.brokers import Broker, Topology
    from fusewire.forwarding._handle import ForwarderHandle
    from fusewire.forwarding._outcome_kinds import Outcome
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.parking import (
        ConsumerStatus,
        MessageEvent,
        MessageTracer,
        ReplayFigures,
        RetryPolicy,
    )
    from fusewire.parking.internal import FormerKeywords, Replay


class ParkedCalls(Queueing, Finding):
    """Stores unary calls that cannot be made now, and makes them when they can.

    Enter it with ``async with``, or with ``with`` for programs whose channels are sync: it then
    runs an event loop in a thread of its own. Give :meth:`fallbacks` to the interceptors, or
    :meth:`submit` calls, and give the guarded channel to :meth:`forward_to`, here or in another
    process. :meth:`find` says where a call is, and :meth:`cancel` keeps it from being made.

    Args:
        address: ``amqp://`` or ``amqps://`` for RabbitMQ, several nodes of a cluster with commas
            between them; ``sqlite:///`` or a path for a file; or a broker.
        queue: names the queues: calls wait in ``<queue>.parked.<lane>``. They are made if absent.
        methods: what may be queued, and how: ``/package.Service/Method`` to its policy. A forwarder
            goes by the `window` and `done_on` that were stored with a call, and by those that it
            is given here for calls without.
        max_waiting: how many calls may wait in a lane, by what was last counted: every 5 s, and
            without those that a forwarder has in flight. So it is a soft limit. Above it, callers
            get the original error. By default there is none.
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
        on_outcome: a function of the :class:`Outcome` of each call, plain or a coroutine function;
            a plain one runs in a worker thread. It is called by a consumer of ``<queue>.replies``,
            which calls it again when it raises; see `outcome_retry`. It may get an outcome twice.
        outcomes: whether outcomes are kept for another process, which has `on_outcome`. They are
            kept of calls that are stored, or settled, where one of the two is given.
        outcome_retry: when `on_outcome` is called again; by default ``RetryPolicy()``. After its
            last attempt an outcome is in ``<queue>.replies.dead``.
        encryption: how requests and their metadata are encrypted before they are stored; by default
            they are not. All programs that use the queue give it.

    Raises:
        SettingsError: an argument cannot be right.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | Broker,
        *,
        queue: str,
        methods: Mapping[str, ParkPolicy] = MappingProxyType({}),
        max_waiting: int | None = None,
        registry: BreakerRegistry | None = None,
        lanes: Mapping[str, Collection[str]] | None = None,
        park_timeout: float = 5.0,
        replay_timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        replay: Replay = None,
        exchange: str = "",
        shutdown_timeout: float = 30.0,
        on_outcome: Callable[[Outcome], Awaitable[None] | None] | None = None,
        outcomes: bool = False,
        outcome_retry: RetryPolicy | None = None,
        encryption: Encryption | None = None,
        **former: Unpack[FormerKeywords],
    ) -> None:
        retry, replay = policies("ParkedCalls", retry, replay, former)
        check("park_timeout", park_timeout, SECONDS)
        check("replay_timeout", replay_timeout, SECONDS)
        check("registry", registry, instance_of(BreakerRegistry).or_none)
        check("shutdown_timeout", shutdown_timeout, SECONDS_OR_ZERO)
        check("encryption", encryption, instance_of(Encryption).or_none)
        check_methods(methods)
        broker = open_broker(address)  # refused here, and not when this object is entered
        self._address = address
        self._registry = default_registry() if registry is None else registry
        dependencies = Dependencies(None, lanes)
        self._topology = queues_of(
            queue, dependencies.lanes, retry=retry, replay=replay, exchange=exchange
        )
        self._settlements = Settlements(self._topology, dependencies.lane)
        self._tracing = Tracing(broker.capabilities.system)
        self._codec = CallCodec(encryption, queue)
        asks = outcomes or on_outcome is not None
        self._reading = OutcomeReading(
            queue,
            on_outcome,
            codec=self._codec,
            methods=methods,
            retry=outcome_retry,
            exchange=exchange,
            shutdown_timeout=shutdown_timeout,
        )
        self._topologies = (self._topology, self._reading.topology)[: 1 + asks]
        log = ParkLog()
        self._status = StoreStatus(
            self._topology,
            dependencies,
            self._registry,
            self._settlements,
            log,
            forwards=lambda: self._forwarder is not None and self._forwarder.runs,
            counts=max_waiting is not None,
        )
        store = CallStore(
            self._topology,
            dependencies,
            timeout=park_timeout,
            settlements=self._settlements,
            tracing=self._tracing,
            contact=self._status.contact,
            codec=self._codec,
            asks=asks,
            live_calls=LiveCalls(self._registry),
        )
        limits = Limits(self._topology, dependencies, self._status.watch, max_waiting)
        Queueing.__init__(self, store, log, limits, methods)
        replies = CallReplies(queue, self._codec, always=asks)
        Finding.__init__(self, store, CallSearch(self._topology, replies))
        self._forwarding = Forwarding(
            queue=queue,
            methods=methods,
            lanes=lanes,
            registry=self._registry,
            retry=retry,
            replay=replay,
            exchange=exchange,
            replay_timeout=replay_timeout,
            shutdown_timeout=shutdown_timeout,
            codec=self._codec,
            settlements=self._settlements,
            tracing=self._tracing,
            replies=replies,
        )
        self._reader: ForwarderHandle | None = None
        self._entry: BrokerEntry | None = None
        self._stack = AsyncExitStack()
        self._threads = ExitStack()
        self._forwarder: ForwarderHandle | None = None
        self._registry.measure_durations()  # because a replay needs those before an outage

    @property
    def topology(self) -> Topology:
        """The queues, by name."""
        return self._topology

    def replay_figures(self) -> dict[str, dict[str, ReplayFigures]]:
        """Return how replays stand: by lane, and by the breaker that its calls wait for.

        Empty where calls are only parked. Safe to call from any thread.
        """
        return {} if self._forwarder is None else self._forwarder.replay_figures()

    def change_replay(self, policy: ReplayPolicy) -> ReplayPolicy:
        """Replay by other limits from now on. Returns the policy that applies now.

        It is as for :meth:`ParkingConsumer.change_replay
        <fusewire.parking.ParkingConsumer.change_replay>`.

        Raises:
            SettingsError: `policy` is no ReplayPolicy.
        """
        check("policy", policy, instance_of(ReplayPolicy))
        changed = self._forwarding.replay = taken_over(self._forwarding.replay, policy)
        if self._forwarder is not None:
            self._forwarder.change_replay(changed)
        return changed

    def status(self) -> ConsumerStatus:
        """Return how it stands: connected, what is in flight, how many calls wait in each lane.

        Where calls are only parked it is not `running`, and nothing is in flight. What reads
        outcomes shows in `halted`. It waits for nothing and may be called from any thread; see
        :meth:`ParkingConsumer.status <fusewire.parking.ParkingConsumer.status>`.
        """
        forwarder, reader = (each and each.status() for each in (self._forwarder, self._reader))
        stopped = [each.halted for each in (forwarder, reader) if each and each.halted]
        status = forwarder if forwarder and forwarder.running else self._status.read()
        return dataclasses.replace(status, halted=stopped[0]) if stopped else status

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Have `listener` called when a call is parked, replayed, delayed or dead.

        It is called on the event loop and must not block. Returns the function that removes it.
        """
        return self._settlements.listeners.add(listener)

    def trace_with(self, tracer: MessageTracer) -> Callable[[], None]:
        """Have `tracer` trace each call that is parked, and each replay of one.

        :mod:`fusewire.telemetry.opentelemetry` has such a tracer, and calls this. Returns the
        function that ends it.

        Raises:
            SettingsError: there is a tracer already.
        """
        return self._tracing.set(tracer)

    def forward_to(self, channel: grpc.Channel | grpc.aio.Channel) -> ForwarderHandle:
        """Start to replay stored calls on `channel`.

        Give the guarded channel: its breakers decide when to replay, and its interceptors add
        credentials. Its fallbacks are suppressed for replays. Several processes may forward from
        the same queues.

        It may be called before the broker can be reached, and forwards from then on.

        Returns:
            the forwarder that runs. It ends with this object. As a context manager within the
            channel's, it ends before the channel is closed, so that no replay is cut off.

        Raises:
            SettingsError: it is no channel, an asyncio channel of another event loop, or one whose
                guard has another registry.
            RuntimeError: called before entering, or twice.
        """
        entry, loop, thread = self._entry, self._store.loop, self._store.thread
        if entry is None or loop is None:
            raise RuntimeError("enter the ParkedCalls first, then forward")
        if self._forwarder is not None:
            raise RuntimeError("forward_to() was called before: one channel for one ParkedCalls")
        self._forwarder = self._forwarding.forwarder(channel, entry, loop, thread)
        self._store.probes.forwarder = self._forwarder
        self._forwarder.change_replay(self._forwarding.replay)  # another thread may have changed it
        loop.call_soon_threadsafe(self._forwarder.start)
        return self._forwarder

    async def run(
        self, channel: grpc.Channel | grpc.aio.Channel, *, handle_signals: bool = True
    ) -> None:
        """Forward on `channel` until SIGTERM or SIGINT, for a program that only forwards.

        Replays in flight then have `shutdown_timeout` seconds to end; a second SIGINT ends at once.
        Other handlers of these signals are called too.

        Args:
            channel: as :meth:`forward_to` takes it.
            handle_signals: end on SIGTERM and SIGINT, where Python allows it: on the main thread.
                False for a program that handles them itself, and cancels this.

        Raises:
            Exception: as :meth:`forward_to`; RuntimeError also if it was entered by ``with``.
        """
        if self._store.thread != threading.get_ident():
            raise RuntimeError("enter the ParkedCalls by `async with` on this loop, then run it")
        await self.forward_to(channel).until_stopped(handle_signals=handle_signals)

    def run_sync(self, channel: grpc.Channel) -> None:
        """Connect, forward on a sync channel until SIGTERM or SIGINT, and disconnect.

        Raises:
            Exception: as entering and :meth:`forward_to`.
        """

        async def main() -> None:
            async with self:
                await self.run(channel)

        asyncio.run(main())

    async def __aenter__(self) -> Self:
        """Connect, and make the queues that are absent.

        If the broker cannot be reached, that is logged and tried again. Until it can, nothing is
        stored, and callers get the original error with ``fusewire-parked: no``.

        Raises:
            BrokerError: the broker was reached, and does not do what it is asked for.
            Exception: whatever the function raises that gives the keys of `encryption`.
        """
        await self._codec.open()
        broker, given = open_broker(self._address), self._address
        entry = BrokerEntry(
            broker, self._topologies, self._status.contact, is_entered=broker is given
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(entry.open(self._store.use))
            await stack.enter_async_context(self._status.watching(broker))
            await stack.enter_async_context(self._codec.kept_fresh())
            self._stack = stack.pop_all()
        self._entry = entry
        self._store.open()
        self._reader = self._reading.reader(
            entry, asyncio.get_running_loop(), threading.get_ident()
        )
        if self._reader is not None:
            self._reader.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the replays in flight, end the forwarder, and disconnect."""
        try:
            if self._forwarder is not None:
                await self._forwarder.end()
        finally:
            self._store.close()
            reader, self._reader = self._reader, None
            self._forwarder = self._entry = None
            try:
                if reader is not None:
                    await reader.end()
            finally:
                await self._stack.aclose()

    def __enter__(self) -> Self:
        """Connect as ``async with`` does, on an event loop in a thread of its own."""
        with ExitStack() as threads:
            portal = threads.enter_context(
                start_blocking_portal(name=f"fusewire {self._topology.source}")
            )
            threads.enter_context(portal.wrap_async_context_manager(self))
            self._threads = threads.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the replays in flight, end the forwarder, and disconnect."""
        self._threads.close()
