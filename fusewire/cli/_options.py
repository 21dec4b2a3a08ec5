"""The options that name the queues of one consumer."""

from __future__ import annotations

from typing import Annotated

import typer

from fusewire.brokers import DEFAULT_DELAYS, Topology

_DEFAULT_TIERS = ", ".join(f"{tier:g}" for tier in DEFAULT_DELAYS)

QueueOption = Annotated[str, typer.Option("--queue", metavar="NAME", help="The source queue.")]
LaneOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lane",
        metavar="NAME",
        help="A lane that `lanes` or `depends_on` names; may be repeated. `other` always exists.",
        show_default=False,
    ),
]
TierOption = Annotated[
    list[float] | None,
    typer.Option(
        "--delay-tier",
        metavar="SECONDS",
        help=f"A delay tier; may be repeated. By default {_DEFAULT_TIERS}.",
        show_default=False,
    ),
]
ExchangeOption = Annotated[
    str,
    typer.Option(
        "--exchange",
        metavar="NAME",
        help="`exchange`; by default the default exchange.",
    ),
]
SingleOption = Annotated[
    bool,
    typer.Option(
        "--single", help='For ReplayPolicy(scope="cluster"): one replica replays at a time.'
    ),
]


def parse_topology(
    queue: str,
    lanes: list[str] | None,
    tiers: list[float] | None,
    exchange: str,
    *,
    single: bool,
) -> Topology:
    """Return the topology that the options name.

    Raises:
        SettingsError: a name or a delay cannot be used.
    """
    return Topology(
        queue,
        tuple(lanes or ()),
        tuple(tiers or DEFAULT_DELAYS),
        single=single,
        options={"exchange": exchange},
    )
