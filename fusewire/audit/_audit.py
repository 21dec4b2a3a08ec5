"""The audit of one consumer's queues, on any broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.audit._by_amqp import findings_by_amqp
from fusewire.audit._management import Management
from fusewire.audit._rules import findings_of
from fusewire.brokers.rabbitmq import Layout, RabbitMQBroker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.audit._findings import Finding
    from fusewire.brokers import Broker, Topology


async def audit(broker: Broker, topology: Topology) -> Sequence[Finding]:
    """Find settings of existing queues that could lose messages or are not intended.

    It looks only, and changes nothing. Without the management API (see
    :class:`~fusewire.brokers.RabbitMQBroker`), most is reported as not checked.

    Args:
        broker: where the queues are; entered.
        topology: the queues, as :attr:`ParkingConsumer.topology` gives them.

    Returns:
        what was found, the worst first. Nothing for a broker other than RabbitMQ: only there can
        somebody set a queue up in a way that loses messages.

    Raises:
        BrokerUnavailableError: RabbitMQ, or its management API, does not answer.
        BrokerError: what it answers is of no use; the message says why.
    """
    if not isinstance(broker, RabbitMQBroker):
        return ()
    layout, version = Layout(topology), await broker.version()
    if broker.management is None:
        types = await broker.queue_types(layout.queues)
        return findings_by_amqp(layout, types, version, broker.virtual_host)
    management = Management(broker.management)
    facts = await management.facts(layout, virtual_host=broker.virtual_host, version=version)
    return findings_of(layout, facts)
