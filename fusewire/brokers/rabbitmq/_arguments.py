"""Which arguments each of our queues is made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.brokers.topology import milliseconds

if TYPE_CHECKING:
    from pamqp.common import FieldTable

    from fusewire.brokers.rabbitmq._layout import Layout

DELIVERY_LIMIT_SINCE = (4, 0)
"""The version that gave quorum queues a delivery limit of 20.

A queue that is peeked at, or whose consumers lose their connection, reaches it without any message
being at fault; the message is then dropped.
"""


def queue_arguments(layout: Layout, version: tuple[int, ...]) -> dict[str, FieldTable]:
    """Return the declaration arguments of every derived queue, by name."""
    kept, topology = kept_arguments(version), layout.topology
    parked: FieldTable = {**kept, "x-single-active-consumer": True} if topology.single else kept
    arguments = {layout.parked(lane): dict(parked) for lane in topology.lanes}
    for tier in topology.delays:
        arguments[layout.delay(tier)] = {
            "x-queue-type": "quorum",
            "x-message-ttl": milliseconds(tier),
            "x-dead-letter-exchange": layout.exchange,
            "x-dead-letter-routing-key": layout.source,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    arguments[layout.dead] = kept
    return arguments


def kept_arguments(version: tuple[int, ...]) -> FieldTable:
    """Return the arguments of a queue whose messages stay until somebody takes them.

    Should a policy limit its length, it refuses messages then, and drops none, unless the policy
    sets `overflow` too: a quorum queue takes that of a policy before its own. The audit finds it.
    """
    arguments: FieldTable = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
    if version >= DELIVERY_LIMIT_SINCE:
        arguments["x-delivery-limit"] = -1
    return arguments


def expiring_arguments(seconds: float) -> FieldTable:
    """Return the arguments of a queue that RabbitMQ deletes when it was not used for `seconds`."""
    return {"x-queue-type": "classic", "x-expires": milliseconds(seconds)}
