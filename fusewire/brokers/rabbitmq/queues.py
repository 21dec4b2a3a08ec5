"""Which arguments each of our queues is made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.brokers.topology import Topology, milliseconds

if TYPE_CHECKING:
    from pamqp.common import FieldTable

_DELIVERY_LIMIT_SINCE = (4, 0)
# RabbitMQ 4.0 gave quorum queues a delivery limit of 20, which a queue that is peeked at or whose
# consumers lose their connection reaches without any message being at fault; the message is then
# dropped.


def queue_arguments(topology: Topology, version: tuple[int, ...]) -> dict[str, FieldTable]:
    """Return the declaration arguments of every derived queue, by name."""
    kept = kept_arguments(version)
    arguments = {topology.dead: kept}
    for lane in topology.lanes:
        arguments[topology.parked(lane)] = {**kept, "x-overflow": "reject-publish"}
    for tier in topology.delay_tiers:
        arguments[topology.delay(tier)] = {
            "x-queue-type": "quorum",
            "x-message-ttl": milliseconds(tier),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": topology.source,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    return arguments


def kept_arguments(version: tuple[int, ...]) -> FieldTable:
    """Return the arguments of a queue whose messages stay until somebody takes them."""
    arguments: FieldTable = {"x-queue-type": "quorum"}
    if version >= _DELIVERY_LIMIT_SINCE:
        arguments["x-delivery-limit"] = -1
    return arguments
