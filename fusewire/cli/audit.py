"""``fusewire audit``: is what waits in these queues safe?"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fusewire.audit import Severity
from fusewire.audit import audit as audit_queues
from fusewire.brokers import RabbitMQBroker
from fusewire.cli.ending import fail
from fusewire.cli.printing import Format, say
from fusewire.cli.queues import (
    ExchangeOption,
    LaneOption,
    QueueOption,
    SingleOption,
    TierOption,
    asked,
)
from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.audit import Finding
    from fusewire.brokers import Topology

_UNSAFE = 1
_UNSEEN = 3


def audit(
    *,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="FUSEWIRE_ADDRESS",
            help="amqp:// or amqps://, with the virtual host.",
            show_default=False,
        ),
    ],
    queue: QueueOption,
    lane: LaneOption = None,
    delay_tier: TierOption = None,
    exchange: ExchangeOption = "",
    single: SingleOption = False,
    management: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="FUSEWIRE_MANAGEMENT_URL",
            help="The management API, http://host:15672 for one; without, most is not checked, and "
            "the exit status is 3. Its user is the address's, unless it names one.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="json prints the findings as one array.")
    ] = Format.TEXT,
) -> None:
    """Look for what could lose messages in the queues of a consumer on RabbitMQ.

    It looks only, and changes nothing. The exit status is 0 if nothing was found that could lose
    messages, 1 if something was, 2 if the audit could not be made, and 3 if nothing was found but
    most could not be checked, without the management API.
    """
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)  # an error is told once, by us
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    try:
        queues = asked(queue, lane, delay_tier, exchange, single=single)
        broker = RabbitMQBroker(address, management=management)
        findings = asyncio.run(_findings(broker, queues))
    except FusewireError as error:
        fail("audit", str(error))
    if output is Format.JSON:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print(queues, findings)
    if any(finding.severity is Severity.LOSS for finding in findings):
        raise typer.Exit(_UNSAFE)
    if management is None:
        raise typer.Exit(_UNSEEN)


async def _findings(broker: RabbitMQBroker, queues: Topology) -> Sequence[Finding]:
    async with broker:
        return await audit_queues(broker, queues)


_STYLES = {Severity.LOSS: "bold red", Severity.WARNING: "yellow", Severity.UNCHECKED: "dim"}


def _print(queues: Topology, findings: Sequence[Finding]) -> None:
    console = Console()
    for finding in findings:
        say(console, f"{finding.severity}: {finding.subject}", style=_STYLES[finding.severity])
        say(console, f"  {finding.what}")
        say(console, f"  why: {finding.why}")
        first, *commands = finding.remedy.split("\n")
        say(console, f"  do: {first}")
        for command in commands:
            say(console, f"    {command}")
    counted = {
        severity: sum(finding.severity is severity for finding in findings) for severity in Severity
    }
    say(
        console,
        f"{queues.source}: {counted[Severity.LOSS]} that could lose messages, "
        f"{counted[Severity.WARNING]} warnings, {counted[Severity.UNCHECKED]} not checked",
    )
