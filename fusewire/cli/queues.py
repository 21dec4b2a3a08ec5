"""The options that name the queues of one consumer."""

from __future__ import annotations

from typing import Annotated

import typer

from fusewire.brokers import DELAY_TIERS, Topology

_DEFAULT_TIERS = ", ".join(f"{tier:g}" for tier in DELAY_TIERS)

QueueOption = Annotated[
    str, typer.Option("--queue", metavar="NAME", help="The queue that is consumed.")
]
LaneOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lane",
        metavar="NAME",
        help="A lane, as `lanes` or `depends_on` name it; may be repeated. `other` is always one.",
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
        "--exchange", metavar="NAME", help="As `exchange`; by default the default exchange."
    ),
]
SingleOption = Annotated[
    bool, typer.Option("--single", help='As `replay="single"`: one replica replays at a time.')
]


def asked(
    queue: str,
    lanes: list[str] | None,
    tiers: list[float] | None,
    exchange: str,
    *,
    single: bool,
) -> Topology:
    """Return the topology that the options name.

    Raises:
        SettingsError: they cannot be right.
    """
    return Topology(queue, tuple(lanes or ()), tuple(tiers or DELAY_TIERS), exchange, single)
