"""The consumer that people wrap their handlers in."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, Unpack

from fusewire._validation import (
    SECONDS,
    SECONDS_OR_ZERO,
    check,
    count_up_to,
    instance_of,
    invalid,
    one_of,
)
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.brokers import open_broker
from fusewire.parking._auditing import auditing
from fusewire.parking._breaker_names import check_breaker_names, check_function
from fusewire.parking._calling import HandlerCalls
from fusewire.parking._circuits import Circuits
from fusewire.parking._decisions import FailurePolicy
from fusewire.parking._dependencies import Dependencies
from fusewire.parking._failure_log import FailureLog
from fusewire.parking._former_keywords import policies
from fusewire.parking._handler import HandlerRunner
from fusewire.parking._live_calls import LiveCalls
from fusewire.parking._parts import ConsumerParts
from fusewire.parking._pauses import ALIKE_BY_CONDITION, Pauses
from fusewire.parking._replay_measures import HandlerTimes
from fusewire.parking._settings import MOST_HELD, ReplayPolicy, queues_of, taken_over
from fusewire.parking._settlements import Settlements
from fusewire.parking._signals import until_signal
from fusewire.parking._status import status_of
from fusewire.parking._status_watch import BrokerContact, StatusWatch
from fusewire.parking._supervision import keep_all_running
from fusewire.parking._tracing import Tracing
from fusewire.parking._unrecoverable import unrecoverable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Broker, Topology
    from fusewire.parking._dependencies import DependsOn
    from fusewire.parking._events import MessageEvent
    from fusewire.parking._former_keywords import FormerKeywords, Replay
    from fusewire.parking._handler import Handler
    from fusewire.parking._parts import Workers
    from fusewire.parking._replay_controller import ReplayFigures
    from fusewire.parking._settings import RetryPolicy
    from fusewire.parking._status import ConsumerStatus
    from fusewire.parking._tracing import MessageTracer

logger = logging.getLogger("fusewire.parking")

_HOLD_LIMIT = 900.0
"""Seconds that a delivery is held at most: half of RabbitMQ's default consumer timeout.

After 30 minutes it closes the channel
(https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
"""


class ParkingConsumer:
    """Consumes a queue; parks what needs a dependency that is down, and replays it after recovery.

    Enter it, then await :meth:`run`; or call :meth:`run_sync`. The queue must exist: it is the
    user's. Its stations ``<queue>.parked.<lane>`` and ``<queue>.dead``, and RabbitMQ's delay queues
    ``<queue>.delay.<ms>``, are made if absent.

    Args:
        address: ``amqp://`` or ``amqps://`` for RabbitMQ, several nodes of a cluster with commas
            between them; ``sqlite:///`` or a path for a file; or a broker.
        queue: the queue to consume.
        handler: called with each message, an :class:`aio_pika.abc.AbstractIncomingMessage`; a
            coroutine function, or a plain one, which runs in a worker thread. Returning means
            done. Raising means a failed attempt, unless what was raised comes from a
            :class:`~fusewire.errors.CircuitOpenError`; :class:`Reject` puts it aside at once, and
            :class:`Retry` has it tried again at a time that the handler names.
        depends_on: names of the breakers that messages need, or a function of the message. A
            message whose breaker does not admit is parked without calling the handler. What is
            not declared is learnt from the handler's CircuitOpenError.
        lanes: lane name to the dependencies that share its parking queue; by default each name in
            `depends_on` has its own.
        guard_with: breaker whose permit is taken around the handler, for handlers whose calls are
            not guarded themselves.
        registry: where breakers are; the process's own by default.
        on_open: what becomes of messages while the circuit that they need is open. ``"park"``
            moves them to their lane, and whatever needs no open circuit goes on; order is not
            kept. ``"pause"`` keeps the queue's order: nothing is consumed until the open time is
            over, failed attempts are made again in place, and all behind them waits.
        concurrency: handlers of new messages at a time, and the prefetch. With ``"pause"`` they
            begin in the queue's order; only with 1 does each end before the next begins.
        retry: when a message that failed is tried again, and when it is dead; by default
            ``RetryPolicy()``.
        replay: how parked messages are replayed after recovery; by default ``ReplayPolicy()``.
        exchange: name of the direct exchange of RabbitMQ's that messages are moved through, made if
            absent; by default the default exchange, whose write permission is one on every queue.
            SQLite has none, and ignores it.
        operation_id: a function from a message to its operation id. Without it: our header, else
            its ``message_id``, else one that is assigned.
        handler_timeout: seconds after which a call of the handler has failed; no limit by default.
            A coroutine is cancelled. A plain function cannot be stopped: that it is late is logged,
            with where it is, and its message and its place stay taken until it ends.
        shutdown_timeout: seconds that handlers may still take when the consumer is stopped. A plain
            function that does not end keeps the process from ending, as all threads of Python's do.

    Raises:
        SettingsError: an argument cannot be right.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | Broker,
        *,
        queue: str,
        handler: Handler,
        depends_on: DependsOn = None,
        lanes: Mapping[str, Collection[str]] | None = None,
        guard_with: str | None = None,
        registry: BreakerRegistry | None = None,
        on_open: Literal["park", "pause"] = "park",
        concurrency: int = 10,
        retry: RetryPolicy | None = None,
        replay: Replay = None,
        exchange: str = "",
        operation_id: Callable[[AbstractIncomingMessage], str | None] | None = None,
        handler_timeout: float | None = None,
        shutdown_timeout: float = 30.0,
        **former: Unpack[FormerKeywords],
    ) -> None:
        retry, replay = policies("ParkingConsumer", retry, replay, former)
        check("on_open", on_open, one_of("park", "pause"))
        # In order, one more than is handled is held.
        most = MOST_HELD - (on_open == "pause")
        check("concurrency", concurrency, count_up_to(most, "which is AMQP's limit"))
        check("handler_timeout", handler_timeout, SECONDS.or_none)
        check("shutdown_timeout", shutdown_timeout, SECONDS_OR_ZERO)
        if operation_id is not None:
            check_function("operation_id", operation_id, "a message")
        if guard_with is not None:
            check_breaker_names("guard_with", [guard_with])
        check("registry", registry, instance_of(BreakerRegistry).or_none)
        if registry is None:  # an empty one is false
            registry = default_registry()
        broker = open_broker(address)  # refused here, and not when the consumer is entered
        self._address = address
        dependencies = Dependencies(depends_on, lanes)
        self._topology = queues_of(
            queue, dependencies.lanes, retry=retry, replay=replay, exchange=exchange
        )
        if self._topology.single and not broker.capabilities.single:
            accepted = f"'replica', because {broker!r} has no single receivers"
            raise invalid("ReplayPolicy.scope", accepted, replay.scope)
        handler_times = HandlerTimes(time.monotonic)
        policy = FailurePolicy(
            retry,
            _now_ms,
            unrecoverable(retry.dead_on),
            live_calls=LiveCalls(registry, handler_times).of,
        )
        # In its order, only the first message is tried: it is all that the others can go by.
        pauses = Pauses(
            now_ms=_now_ms, alike_by_condition=1 if on_open == "pause" else ALIKE_BY_CONDITION
        )
        calls = HandlerCalls(
            handler,
            threads=concurrency + replay.concurrency * len(self._topology.lanes),
            timeout=handler_timeout,
            warn_after=(_HOLD_LIMIT / 2, _HOLD_LIMIT),
        )
        self._parts = ConsumerParts(
            topology=self._topology,
            dependencies=dependencies,
            policy=policy,
            registry=registry,
            calls=calls,
            circuits=Circuits(registry, pauses),
            pauses=pauses,
            contact=BrokerContact(queue),
            handler_times=handler_times,
            settlements=Settlements(self._topology, dependencies.lane),
            runner=HandlerRunner(
                calls,
                guard_with=guard_with,
                registry=registry,
                unrecoverable=policy.unrecoverable,
                interrupted=self._be_interrupted,
            ),
            failures=FailureLog(calls.name),
            identity=operation_id,
            on_open=on_open,
            concurrency=concurrency,
            replay=replay,
            shutdown_timeout=shutdown_timeout,
            tracing=Tracing(broker.capabilities.system),
        )
        self._broker: Broker | None = None
        self._stack = AsyncExitStack()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupt: KeyboardInterrupt | None = None
        registry.measure_durations()  # from now on, because a replay needs those before an outage
        self._watch = StatusWatch(self._topology, self._parts.contact)
        self._running = False
        self._workers: Workers | None = None

    @property
    def topology(self) -> Topology:
        """The source queue and the stations that belong to it."""
        return self._topology

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Have `listener` called after each settlement; returns the function that removes it.

        It is called on the consumer's event loop and must not block.
        """
        return self._parts.settlements.listeners.add(listener)

    def trace_with(self, tracer: MessageTracer) -> Callable[[], None]:
        """Have `tracer` trace each message; returns the function that ends it.

        :mod:`fusewire.telemetry.opentelemetry` has such a tracer, and calls this.

        Raises:
            SettingsError: the consumer has a tracer already.
        """
        return self._parts.tracing.set(tracer)

    def replay_figures(self) -> dict[str, dict[str, ReplayFigures]]:
        """Return how replays stand: by lane, and by the breaker that its messages wait for.

        A lane has figures of those that it was replayed for since :meth:`run` began. The name is
        empty for messages that do not say what they wait for, and for a lane of which that is not
        known yet. Safe to call from any thread.
        """
        workers = self._workers
        return {} if workers is None else {name: w.figures() for name, w in workers.lanes.items()}

    def change_replay(self, policy: ReplayPolicy) -> ReplayPolicy:
        """Replay by other limits from now on. Safe to call from any thread, before it runs too.

        What is in flight goes on. `scope` cannot change while a consumer lives, nor `concurrency`
        where the scope is ``"cluster"``; they stay as they are.

        Returns:
            the policy that applies now.

        Raises:
            SettingsError: `policy` is no ReplayPolicy.
        """
        check("policy", policy, instance_of(ReplayPolicy))
        self._parts.replay = taken = taken_over(self._parts.replay, policy)
        if self._loop is None:
            self._parts.use_replay(None)
        else:
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(lambda: self._parts.use_replay(self._workers))
        return taken

    def status(self) -> ConsumerStatus:
        """Return how the consumer stands: connected, subscribed, what is in flight, what waits.

        It waits for nothing and may be called from any thread, before the consumer is entered too.
        How many messages wait is counted in the background, every 5 s at most, and only for five
        minutes after each call: at first it is None.
        """
        workers = self._workers
        return status_of(
            self._topology,
            self._watch,
            None if workers is None else workers.source,
            lambda lane: self._parts.lane_state(lane, workers),
            self._parts.settlements.faults,
            running=self._running,
        )

    async def __aenter__(self) -> Self:
        """Connect, check the source queue, and make the derived queues that are absent.

        What an audit finds unsafe about them is logged as warnings, a moment later.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
            QueueNotFoundError: the source queue does not exist.
        """
        broker = open_broker(self._address)
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with AsyncExitStack() as stack:
            if broker is self._address:  # given ready-made: its owner enters and leaves it
                self._broker = broker
            else:
                self._broker = await stack.enter_async_context(broker)
            if not self._broker.capabilities.durable:
                logger.warning(
                    "%r is not durable: what waits in the stations of %r is lost with this process",
                    self._broker,
                    self._topology.source,
                )
            await self._broker.prepare(self._topology)
            self._parts.contact.answered(self._parts.contact.failures)
            stack.callback(self._parts.contact.left)
            await stack.enter_async_context(auditing(self._broker, self._topology))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect; what is in flight and not settled goes back to its queue."""
        self.stop()
        await self._stack.aclose()

    async def run(self, *, handle_signals: bool = True) -> None:
        """Consume and replay until :meth:`stop`, SIGTERM or SIGINT.

        Handlers in flight then have `shutdown_timeout` seconds to end; a second SIGINT ends at
        once. Other handlers of these signals in the process are called too.

        Args:
            handle_signals: end on SIGTERM and SIGINT, where Python allows it: on the main thread.
                False for a program that handles them itself and calls :meth:`stop`.

        Raises:
            RuntimeError: the consumer was not entered.
            KeyboardInterrupt: Ctrl-C interrupted a handler. Its message went back to its queue.
        """
        if self._broker is None or self._stopping is None:
            raise RuntimeError(
                "enter the consumer first: async with ParkingConsumer(…) as consumer"
            )
        with until_signal(self.stop) if handle_signals else nullcontext():
            workers = self._parts.workers(self._broker, self._stopping, hold_limit=_HOLD_LIMIT)
            self._workers = workers
            self._running = True
            try:
                await keep_all_running(
                    {
                        **workers.to_run(self._topology),
                        f"the status of {self._topology.source!r}": partial(
                            self._watch.run,
                            self._broker,
                            self._stopping,
                            to_count=self._parts.settlements.lanes.to_count,
                            look=partial(self._parts.look, self._watch, workers),
                            in_flight=workers.in_flight,
                        ),
                    },
                    self._stopping,
                )
            finally:
                self._running = False
                self._parts.end(self._watch)
        if self._interrupt is not None:
            raise self._interrupt

    def run_sync(self) -> None:
        """Connect, consume until SIGTERM or SIGINT, and disconnect; for programs without asyncio.

        Raises:
            BrokerUnavailableError: the broker cannot be reached.
            QueueNotFoundError: the source queue does not exist.
        """

        async def main() -> None:
            async with self:
                await self.run()

        asyncio.run(main())

    def stop(self) -> None:
        """Ask :meth:`run` to end. Safe to call from any thread, and more than once."""
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _be_interrupted(self, error: KeyboardInterrupt) -> None:
        self._interrupt = error
        self.stop()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
