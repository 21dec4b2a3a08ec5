"""What a consumer is made of, and the workers that are made of it for each run."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fusewire.parking._attempt import AttemptSequence
from fusewire.parking._context import ConsumerContext
from fusewire.parking._marks import Marks
from fusewire.parking._replicas import Replicas
from fusewire.parking._settler import Settler
from fusewire.parking._status import LaneState
from fusewire.parking._survived_returns import SurvivedReturns
from fusewire.parking._unacknowledged import Unacknowledged
from fusewire.parking._workers.ordered import OrderedWorker
from fusewire.parking._workers.replay import ReplayWorker
from fusewire.parking._workers.source import SourceWorker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Broker, Station, Topology
    from fusewire.parking._calling import HandlerCalls
    from fusewire.parking._circuits import Circuits
    from fusewire.parking._decisions import FailurePolicy
    from fusewire.parking._dependencies import Dependencies
    from fusewire.parking._failure_log import FailureLog
    from fusewire.parking._handler import HandlerRunner
    from fusewire.parking._pauses import Pauses
    from fusewire.parking._replay_measures import HandlerTimes
    from fusewire.parking._replies import Replies
    from fusewire.parking._settings import ReplayPolicy
    from fusewire.parking._settlements import Settlements
    from fusewire.parking._status_watch import BrokerContact, StatusWatch
    from fusewire.parking._tracing import Tracing


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of one run.

    Attributes:
        source: works on the source queue.
        lanes: replay the lanes, by name.
    """

    source: SourceWorker | OrderedWorker
    lanes: dict[str, ReplayWorker]

    def in_flight(self, station: Station) -> int:
        """Return how many messages of a lane are in flight; 0 for other stations."""
        return self.lanes[station.lane].part.receiver.in_flight if station.lane else 0

    def use(self, policy: ReplayPolicy) -> None:
        """Replay by other limits from now on."""
        for lane in self.lanes.values():
            lane.use(policy)

    def to_run(self, topology: Topology) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what is to be kept running, by its name for the log."""
        return {
            f"the consumer of {topology.source!r}": self.source.run,
            **{
                f"the replay of {str(topology.parked(lane))!r}": worker.run
                for lane, worker in self.lanes.items()
            },
        }


@dataclass(slots=True, kw_only=True)
class ConsumerParts:
    """What lives as long as a consumer.

    Attributes:
        topology: the queues.
        dependencies: what is declared of what messages need.
        policy: how failures are retried.
        registry: where breakers are.
        calls: the handler, and how it is called.
        circuits: the breakers that messages wait for.
        pauses: what has to wait although its circuit is closed.
        runner: calls the handler.
        failures: where first failures are logged.
        identity: the user's function from a message to its operation id.
        on_open: what becomes of messages while their circuit is open.
        concurrency: handlers of new messages at a time.
        replay: how parked messages are replayed; another one counts from :meth:`use_replay` on.
        shutdown_timeout: seconds that handlers may still take at the end.
        settlements: reports each settlement.
        contact: whether the broker answers.
        handler_times: how long the handler takes.
        unacknowledged: what was done and could not be acknowledged.
        survived: which returns of messages this process has survived.
        tracing: traces messages, if there is a tracer.
        replies: says what there is to say of messages that have ended, if there is anything.
    """

    topology: Topology
    dependencies: Dependencies
    policy: FailurePolicy
    registry: BreakerRegistry
    calls: HandlerCalls
    circuits: Circuits
    pauses: Pauses
    runner: HandlerRunner
    failures: FailureLog
    identity: Callable[[AbstractIncomingMessage], str | None] | None
    on_open: Literal["park", "pause"]
    concurrency: int
    replay: ReplayPolicy
    shutdown_timeout: float
    settlements: Settlements
    contact: BrokerContact
    tracing: Tracing
    handler_times: HandlerTimes
    replies: Replies | None = None
    unacknowledged: Unacknowledged = field(default_factory=Unacknowledged)
    survived: SurvivedReturns = field(default_factory=SurvivedReturns)

    def workers(self, broker: Broker, stopping: asyncio.Event, *, hold_limit: float) -> Workers:
        """Make the workers of a run.

        Args:
            broker: where the queues are.
            stopping: set when the consumer ends.
            hold_limit: seconds that a delivery may be held because it cannot be settled.
        """
        marks = Marks(broker, self.topology)
        settler = Settler(
            topology=self.topology,
            dependencies=self.dependencies,
            policy=self.policy,
            identity=self.identity,
            hold_limit=hold_limit,
            stopping=stopping,
            settlements=self.settlements,
            failures=self.failures,
            unacknowledged=self.unacknowledged,
            marks=marks,
            tracing=self.tracing,
            replies=self.replies,
            publish=broker.publish,
        )
        attempts = AttemptSequence(
            policy=self.policy,
            circuits=self.circuits,
            pauses=self.pauses,
            dependencies=self.dependencies,
            runner=self.runner,
            unacknowledged=self.unacknowledged,
            marks=marks,
            survived=self.survived,
            failures=self.failures,
            tracing=self.tracing,
        )
        context = ConsumerContext(
            broker=broker,
            contact=self.contact,
            topology=self.topology,
            settler=settler,
            attempts=attempts,
            policy=self.policy,
            circuits=self.circuits,
            dependencies=self.dependencies,
            survived=self.survived,
            registry=self.registry,
            replica=uuid.uuid4().hex,
            replicas=Replicas(broker, self.topology.source),
            handler_times=self.handler_times,
            stopping=stopping,
            shutdown_timeout=self.shutdown_timeout,
        )
        source = OrderedWorker if self.on_open == "pause" else SourceWorker
        return Workers(
            source(context, concurrency=self.concurrency),
            {name: ReplayWorker(name, context, policy=self.replay) for name in self.topology.lanes},
        )

    def use_replay(self, workers: Workers | None) -> None:
        """Replay by :attr:`replay` from now on. To be called on the event loop, if there is one."""
        self.calls.resize(self.concurrency + self.replay.concurrency * len(self.topology.lanes))
        if workers is not None:
            workers.use(self.replay)

    def lane_state(self, lane: str, workers: Workers | None) -> LaneState:
        """Return how a lane stands. Safe to call from any thread."""
        names = self.dependencies.members(lane)
        if workers is None:
            return LaneState(None, self.circuits.holding(names), {}, None)
        worker = workers.lanes[lane]
        replays = worker.figures()
        return LaneState(
            worker.part.receiver,
            self.circuits.holding(names or replays),
            replays,
            self.settlements.lanes[lane].head,
        )

    def look(self, watch: StatusWatch, workers: Workers) -> None:
        """Log what is due. To be called each second."""
        now = time.monotonic()
        for _, log in self.settlements.lanes:
            log.look(watch.reading(log.station, now), workers.in_flight(log.station))
        self.settlements.look()
        self.failures.look()

    def end(self, watch: StatusWatch) -> None:
        """Log what is left in the lanes, and what was only counted so far."""
        self.settlements.end()
        self.failures.end()
        now = time.monotonic()
        for _, log in self.settlements.lanes:
            log.end(watch.reading(log.station, now))
