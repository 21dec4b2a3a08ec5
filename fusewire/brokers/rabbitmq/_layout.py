"""The queues that hold the stations of one source queue, and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._validation import invalid
from fusewire.brokers._names import LONE, MAX_NAME, derived_name, queue_name
from fusewire.brokers.topology import milliseconds

if TYPE_CHECKING:
    from fusewire.brokers.topology import Topology


@dataclass(frozen=True, slots=True)
class Layout:
    """The queues of `topology`: ``q``, ``q.parked.<lane>``, ``q.delay.<ms>`` and ``q.dead``.

    RabbitMQ delays a message in a queue that has one time to live, so there is one for each of
    :attr:`Topology.delays`, a tier.

    Raises:
        SettingsError: the name of the exchange is too long.
    """

    topology: Topology

    def __post_init__(self) -> None:
        if len(self.exchange.encode()) > MAX_NAME:
            raise invalid("exchange", f"at most {MAX_NAME} bytes long", self.exchange)

    @property
    def exchange(self) -> str:
        """The direct exchange to which each queue is bound by its own name; empty for the default.

        The write permission on RabbitMQ's default exchange is one on every queue.
        """
        return self.topology.options.get("exchange", "")

    @property
    def source(self) -> str:
        """The queue that is consumed."""
        return self.topology.source

    @property
    def dead(self) -> str:
        """The queue of messages that a person has to decide on."""
        return queue_name(self.topology.dead)

    def parked(self, lane: str) -> str:
        """Return the parking queue of `lane`."""
        return queue_name(self.topology.parked(lane))

    def delay(self, tier: float) -> str:
        """Return the delay queue of a tier, in seconds."""
        return delay_queue(self.source, tier)

    @property
    def derived(self) -> tuple[str, ...]:
        """The names of all queues but the source."""
        return (
            *(self.parked(lane) for lane in self.topology.lanes),
            *(self.delay(tier) for tier in self.topology.delays),
            self.dead,
        )

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues, the source first."""
        return (self.source, *self.derived)

    @property
    def marks(self) -> str:
        """What the names of all marks begin with."""
        return f"{self.source}.{LONE}."


def delay_queue(source: str, tier: float) -> str:
    """Return the name of the queue in which messages wait for `tier` seconds."""
    return derived_name(source, f"delay.{milliseconds(tier)}")
