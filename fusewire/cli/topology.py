"""``fusewire topology``: what has to be on a RabbitMQ, where applications may declare nothing."""

from __future__ import annotations

import json
import re
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusewire.brokers import DELAY_TIERS, Topology
from fusewire.brokers.rabbitmq.definitions import definitions, permissions, policies
from fusewire.cli.ending import fail
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from fusewire.brokers.rabbitmq.definitions import Permissions

_OLDEST = (3, 10)
_DEFAULT_TIERS = ", ".join(f"{tier:g}" for tier in DELAY_TIERS)


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


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
    bool, typer.Option("--single", help="Lanes have one active consumer at a time.")
]


def topology(
    *,
    queue: QueueOption,
    lane: LaneOption = None,
    delay_tier: TierOption = None,
    exchange: ExchangeOption = "",
    single: SingleOption = False,
    calls: Annotated[
        bool, typer.Option("--calls", help="For ParkedCalls: the queue itself is made too.")
    ] = False,
    vhost: Annotated[str, typer.Option(metavar="NAME", help="The virtual host.")] = "/",
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="An existing user, who gets the permissions.", show_default=False
        ),
    ] = None,
    rabbitmq: Annotated[
        str, typer.Option(metavar="VERSION", help="RabbitMQ's version: 3.10 or later.")
    ] = "4.0",
    output: Annotated[
        Format,
        typer.Option("--format", help="json can be given to `rabbitmqctl import_definitions`."),
    ] = Format.TEXT,
) -> None:
    """Print queues, bindings, permissions and policies, for whoever makes them.

    Consumers make what is absent by themselves where they may. Nothing is connected to.
    """
    try:
        version = _version(rabbitmq)
        queues = asked(queue, lane, delay_tier, exchange, single=single)
    except SettingsError as error:
        fail("topology", str(error))
    if output is Format.JSON:
        given = definitions(queues, version, virtual_host=vhost, with_source=calls, user=user)
        typer.echo(json.dumps(given, indent=2))
    else:
        _print(queues, version, vhost, user or "USER", makes_source=calls)


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


def _version(written: str) -> tuple[int, ...]:
    matched = re.fullmatch(r"(\d+)(?:\.(\d+|x))?(?:\.[\dx]+)?", written)
    version = (0, 0)
    if matched is not None:
        major, minor = matched.groups(default="0")
        version = (int(major), int(minor.replace("x", "0")))
    if version < _OLDEST:
        raise SettingsError(f"--rabbitmq {written!r}: give a version from 3.10 on, 4.0 for example")
    return version


def _print(
    queues: Topology, version: tuple[int, ...], vhost: str, user: str, *, makes_source: bool
) -> None:
    console = Console()
    given = definitions(queues, version, virtual_host=vhost, with_source=makes_source)
    numbers = ".".join(map(str, version))
    table = Table(title=f"Queues on RabbitMQ {numbers}, all durable", title_justify="left")
    table.add_column("queue", overflow="fold")
    table.add_column("arguments", overflow="fold")
    if not makes_source:
        table.add_row(Text(queues.source), "yours: it has to exist")
    for made in given["queues"]:
        arguments = (f"{key}={json.dumps(value)}" for key, value in made["arguments"].items())
        table.add_row(Text(made["name"]), Text("\n".join(arguments)))
    console.print(table)
    if queues.exchange:
        _say(console, f"\nExchange {queues.exchange}: direct, durable. Bound to it by their names:")
        for binding in given["bindings"]:
            _say(console, f"  {binding['routing_key']}")
    _say(console, "\nPermissions, where everything was made beforehand (--format json makes it):")
    _grant(console, vhost, user, permissions(queues))
    _say(console, "\nPermissions, where the application makes what is absent:")
    _grant(console, vhost, user, permissions(queues, declares=True, makes_source=makes_source))
    _say(
        console, "\nPolicies to consider; a queue has one, so merge them with those that you have:"
    )
    for policy in policies(queues, version):
        _say(console, f"  # {policy.why}")
        _command(
            console,
            ["set_policy", "-p", vhost, policy.name, policy.pattern, json.dumps(policy.definition)],
            ["--apply-to", "queues"],
        )


def _grant(console: Console, vhost: str, user: str, allowed: Permissions) -> None:
    _command(
        console,
        ["set_permissions", "-p", vhost, user, allowed.configure, allowed.write, allowed.read],
    )


def _command(console: Console, arguments: list[str], options: list[str] | None = None) -> None:
    _say(console, f"  rabbitmqctl {shlex.join([*arguments, *(options or [])])}")


def _say(console: Console, line: str) -> None:
    """Print a line as it is: one that is to be copied is not broken."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
