"""What RabbitMQ needs for one source queue, for places where applications declare nothing.

It is worked out from the names alone and asks no broker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusewire.brokers.rabbitmq import (
    DELIVERY_LIMIT_SINCE,
    Layout,
    kept_arguments,
    queue_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.brokers import Topology

DEFAULT_EXCHANGE = "amq.default"
"""The name of the default exchange in permissions."""

_EXAMPLE_LIMIT = 1_000_000  # messages


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a user may do in the virtual host, as regular expressions over names."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that is worth considering.

    Attributes:
        name: its name.
        pattern: a regular expression of the queues that it is for.
        definition: what it sets.
        why: its purpose.
    """

    name: str
    pattern: str
    definition: dict[str, int | str]
    why: str


def permissions(
    topology: Topology, *, declares: bool = False, makes_source: bool = False
) -> Permissions:
    """Return the permissions that a consumer needs, and no others.

    Args:
        topology: the queues.
        declares: whether the consumer creates what is absent; otherwise everything exists already.
        makes_source: whether that includes the source queue, as `ParkedCalls` does.
    """
    layout = Layout(topology)
    exchange = layout.exchange or DEFAULT_EXCHANGE
    lanes = [layout.parked(lane) for lane in topology.lanes]
    read = [layout.source, *lanes]
    write = [exchange]
    if not declares:
        return Permissions(_and_marks(layout, ()), matching(write), matching(read))
    configure = [*layout.derived]
    if makes_source:
        configure = [layout.source, *configure]
    # To declare a queue that dead-letters takes the read permission on it.
    read += [layout.delay(tier) for tier in topology.delays]
    if layout.exchange:
        # To bind takes the write permission on the queue and the read permission on the exchange.
        configure = [exchange, *configure]
        write += [layout.source, *layout.derived]
        read += [exchange]
    return Permissions(_and_marks(layout, configure), matching(write), matching(read))


def definitions(
    topology: Topology,
    version: tuple[int, ...],
    *,
    virtual_host: str = "/",
    with_source: bool = False,
    user: str | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Return definitions for ``rabbitmqctl import_definitions``.

    Args:
        topology: the queues.
        version: RabbitMQ's, for the arguments that depend on it.
        virtual_host: the virtual host of the queues.
        with_source: whether to include the source queue; otherwise it must exist.
        user: an existing user, who gets the permissions to work with them and to make only marks.
    """
    layout = Layout(topology)
    arguments = dict(queue_arguments(layout, version))
    if with_source:
        arguments = {layout.source: kept_arguments(version), **arguments}
    found: dict[str, list[dict[str, Any]]] = {
        "queues": [
            {
                "name": queue,
                "vhost": virtual_host,
                "durable": True,
                "auto_delete": False,
                "arguments": its_arguments,
            }
            for queue, its_arguments in arguments.items()
        ],
    }
    if layout.exchange:
        found["exchanges"] = [
            {
                "name": layout.exchange,
                "vhost": virtual_host,
                "type": "direct",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
        ]
        found["bindings"] = [
            {
                "source": layout.exchange,
                "vhost": virtual_host,
                "destination": queue,
                "destination_type": "queue",
                "routing_key": queue,
                "arguments": {},
            }
            for queue in layout.queues
        ]
    if user is not None:
        needed = permissions(topology)
        found["permissions"] = [
            {
                "user": user,
                "vhost": virtual_host,
                "configure": needed.configure,
                "write": needed.write,
                "read": needed.read,
            }
        ]
    return found


def policies(topology: Topology, version: tuple[int, ...]) -> list[Policy]:
    """Return the policies that are worth considering; new queues need none of them.

    RabbitMQ applies one policy to a queue: what another already sets belongs into this one too.
    """
    layout = Layout(topology)
    limited = version >= DELIVERY_LIMIT_SINCE
    unlimited: dict[str, int | str] = {"delivery-limit": -1} if limited else {}
    kept = Policy(
        f"fusewire {layout.source} derived",
        matching(layout.derived),
        {"max-length": _EXAMPLE_LIMIT, "overflow": "reject-publish", **unlimited},
        "a limit, the figure being yours: a full parking queue refuses, and its consumer pauses"
        + ("; the delivery limit for queues that were made before RabbitMQ 4" if limited else ""),
    )
    if not limited:
        return [kept]
    source = Policy(
        f"fusewire {layout.source}",
        matching((layout.source,)),
        unlimited,
        "RabbitMQ 4 drops a message after 20 returns, and a lost connection is one",
    )
    return [kept, source]


def _and_marks(layout: Layout, names: Iterable[str]) -> str:
    """Return a regular expression of names and of the marks, whose names are not known before."""
    escaped = [re.escape(name) for name in dict.fromkeys(names)]
    marks = re.escape(layout.marks) + ".+"
    return f"^({'|'.join([*escaped, marks])})$"


def matching(names: Iterable[str]) -> str:
    """Return a regular expression, Erlang's and Python's, of exactly these names."""
    escaped = [re.escape(name) for name in dict.fromkeys(names)]
    return f"^({'|'.join(escaped)})$" if escaped else "^$"
