"""What the workers of one consumer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Broker, Topology
    from fusewire.parking._attempt import AttemptSequence
    from fusewire.parking._circuits import Circuits
    from fusewire.parking._decisions import FailurePolicy
    from fusewire.parking._dependencies import Dependencies
    from fusewire.parking._replay_measures import HandlerTimes
    from fusewire.parking._replicas import Replicas
    from fusewire.parking._settler import Settler
    from fusewire.parking._status_watch import BrokerContact
    from fusewire.parking._survived_returns import SurvivedReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerContext:
    """Made once for a run of a consumer.

    Attributes:
        broker: where the queues are.
        contact: whether it answers.
        topology: their names.
        settler: reads and settles deliveries.
        attempts: tries messages and says what becomes of them.
        policy: how failures are retried.
        circuits: the breakers that messages wait for.
        dependencies: what is declared of them.
        survived: which returns of messages this process has survived.
        registry: where they are.
        replica: what tells this consumer from others of the same queue.
        replicas: counts these.
        handler_times: how long the handler takes.
        stopping: set when the consumer ends.
        shutdown_timeout: seconds that handlers may still take then.
    """

    broker: Broker
    contact: BrokerContact
    topology: Topology
    settler: Settler
    attempts: AttemptSequence
    policy: FailurePolicy
    circuits: Circuits
    dependencies: Dependencies
    survived: SurvivedReturns
    registry: BreakerRegistry
    replica: str
    replicas: Replicas
    handler_times: HandlerTimes
    stopping: asyncio.Event
    shutdown_timeout: float
