"""``fusewire topology``: what an administrator has to create on RabbitMQ."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusewire._validation import invalid
from fusewire.audit import definitions, permissions, policies
from fusewire.brokers.rabbitmq import Layout
from fusewire.cli._exit import fail
from fusewire.cli._options import (
    ExchangeOption,
    LaneOption,
    QueueOption,
    SingleOption,
    TierOption,
    parse_topology,
)
from fusewire.cli._output import Format, echo
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from fusewire.audit import Permissions
    from fusewire.brokers import Topology

_OLDEST = (3, 10)


def topology(
    *,
    queue: QueueOption,
    lane: LaneOption = None,
    delay_tier: TierOption = None,
    exchange: ExchangeOption = "",
    single: SingleOption = False,
    calls: Annotated[
        bool, typer.Option("--calls", help="For ParkedCalls: the queue itself is created too.")
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
    """Print the queues, bindings, permissions and policies of a consumer on RabbitMQ.

    It is for places where applications may not declare queues: elsewhere, consumers declare what is
    absent. The command connects to nothing.
    """
    try:
        version = _version(rabbitmq)
        queues = parse_topology(queue, lane, delay_tier, exchange, single=single)
    except SettingsError as error:
        fail("topology", str(error))
    if output is Format.JSON:
        given = definitions(queues, version, virtual_host=vhost, with_source=calls, user=user)
        typer.echo(json.dumps(given, indent=2))
    else:
        _print(queues, version, vhost, user or "USER", makes_source=calls)


def _version(written: str) -> tuple[int, ...]:
    matched = re.fullmatch(r"(\d+)(?:\.(\d+|x))?(?:\.[\dx]+)?", written)
    version = (0, 0)
    if matched is not None:
        major, minor = matched.groups(default="0")
        version = (int(major), int(minor.replace("x", "0")))
    if version < _OLDEST:
        raise invalid("--rabbitmq", "a version from 3.10 on, such as 4.0", written)
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
        table.add_row(Text(queues.source), "yours: it must exist")
    for made in given["queues"]:
        arguments = (f"{key}={json.dumps(value)}" for key, value in made["arguments"].items())
        table.add_row(Text(made["name"]), Text("\n".join(arguments)))
    console.print(table)
    if exchange := Layout(queues).exchange:
        echo(console, f"\nExchange {exchange}: direct, durable. Bound to it by name:")
        for binding in given["bindings"]:
            echo(console, f"  {binding['routing_key']}")
    echo(console, "\nPermissions, if everything exists already (--format json creates it):")
    _grant(console, vhost, user, permissions(queues))
    echo(console, "\nPermissions, if the application creates what is absent:")
    _grant(console, vhost, user, permissions(queues, declares=True, makes_source=makes_source))
    echo(console, "\nPolicies to consider; a queue has only one, so merge them with yours:")
    for policy in policies(queues, version):
        echo(console, f"  # {policy.why}")
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
    echo(console, f"  rabbitmqctl {shlex.join([*arguments, *(options or [])])}")
