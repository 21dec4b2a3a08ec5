"""What an audit finds with AMQP alone: queues that are absent, or of a type that loses messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.audit._findings import Finding, Severity
from fusewire.audit._remediation import Remediation
from fusewire.brokers.rabbitmq import DELIVERY_LIMIT_SINCE, STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fusewire.brokers.rabbitmq import Layout


def findings_by_amqp(
    layout: Layout,
    types: Mapping[str, str | None],
    version: tuple[int, ...],
    virtual_host: str,
) -> list[Finding]:
    """Return the findings without a management API: mostly that something was not checked.

    Args:
        layout: the queues.
        types: the type of each queue that exists; None where RabbitMQ does not say.
        version: RabbitMQ's.
        virtual_host: for the commands that the remedies name.
    """
    remedy = Remediation(virtual_host)
    queues = layout.queues
    limits = "TTL, expiry, length limits and what happens at them, by argument or policy"
    unchecked = {
        "limits": limits,
        "durability": "whether all queues outlive a restart, their consumers and their connection",
        "dead-lettering": "whether delayed messages are dead-lettered at least once",
        "single active consumer": "whether lanes have it as the settings say",
    }
    if unnamed := [queue for queue in queues if queue in types and types[queue] is None]:
        unchecked["queue types"] = f"whether these are quorum queues: {', '.join(unnamed)}"
    if version >= DELIVERY_LIMIT_SINCE:
        numbers = ".".join(map(str, version))
        unchecked["delivery limits"] = (
            f"whether RabbitMQ {numbers}, which has a default of 20, drops returned messages"
        )
    else:
        unchecked["delivery limits"] = "whether one is set, which drops messages that are returned"
    if layout.exchange:
        unchecked["exchange"] = f"type and bindings of {layout.exchange}"
    found = [is_absent(layout, queue) for queue in queues if queue not in types]
    for queue in queues:
        if (its_type := types.get(queue)) is not None:
            found += of_type(queue, its_type, remedy, source=queue == layout.source)
    order = list(Severity)
    return [
        *sorted(found, key=lambda finding: order.index(finding.severity)),
        *(
            Finding(
                Severity.UNCHECKED,
                subject,
                what,
                "AMQP does not show it; the management API does",
                "give the URL of the management API (management=, --management or "
                "FUSEWIRE_MANAGEMENT_URL)",
            )
            for subject, what in unchecked.items()
        ),
    ]


def of_type(name: str, its_type: str, remedy: Remediation, *, source: bool) -> Iterator[Finding]:
    """Return the finding about a queue's type, unless it is a quorum queue."""
    if its_type == "classic":
        yield Finding(
            Severity.LOSS,
            name,
            "is a classic queue",
            "it is on one node only and is lost with its disk, and after a crash most of what was "
            "acknowledged is delivered again",
            remedy.again(name, "declare it with x-queue-type=quorum"),
        )
    elif its_type == STREAM and source:
        yield Finding(
            Severity.LOSS,
            name,
            "is a stream, which cannot be consumed as a queue",
            "it remembers no acknowledgements, so what is published while no consumer is "
            "subscribed would never be handled: a consumer does not start",
            "publish to a quorum queue, or move messages from the stream to one with a consumer of "
            "your own, which keeps its offset",
        )
    elif its_type != "quorum":
        yield Finding(
            Severity.WARNING,
            name,
            f"is a {its_type}, not a queue",
            "acknowledged messages stay in it",
            remedy.again(name, "declare it with x-queue-type=quorum"),
        )


def is_absent(layout: Layout, queue: str) -> Finding:
    """Return the finding about a queue that is not there."""
    if queue == layout.source:
        return Finding(
            Severity.WARNING,
            queue,
            "is absent",
            "a consumer does not start without its source queue",
            "declare it, as a quorum queue, or check the name and the virtual host",
        )
    return Finding(
        Severity.WARNING,
        queue,
        "is absent",
        "moves to it are refused, and the messages stay where they are",
        "a consumer declares it at its start if it may; `fusewire topology` prints it",
    )
