"""Counts the messages in a consumer's queues at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.testing.faults._journal import identity
from fusewire.testing.faults._ledger import LossLedger, Place

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Station, Topology

_ALL = 2**31


async def count_queues(ledger: LossLedger, broker: Broker, topology: Topology) -> None:
    """Add every message that waits in the queues of `topology` to `ledger`.

    Stop the consumers first: what is in somebody's hand is not seen. On RabbitMQ, messages are
    got and put back, which counts towards a delivery limit of the source queue.

    Args:
        ledger: where the messages are added.
        broker: where the queues are; entered.
        topology: the queues, as :attr:`ParkingConsumer.topology` gives them.

    Raises:
        QueueNotFoundError: the source queue does not exist.
        BrokerUnavailableError: the broker cannot be reached.
    """
    await broker.prepare(topology)
    for station, place in places(topology).items():
        for message in await broker.peek(station, limit=_ALL):
            ledger.found(place, identity(message))


def places(topology: Topology) -> dict[Station, Place]:
    """Return what it means to wait in each of the stations."""
    source, *lanes, dead = topology.stations
    return {
        source: Place.SOURCE,
        **dict.fromkeys(lanes, Place.PARKED),
        topology.delayed: Place.DELAYED,
        dead: Place.DEAD,
    }
