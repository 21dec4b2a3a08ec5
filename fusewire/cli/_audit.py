"""``fusewire audit``: finds settings of queues that could lose messages."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fusewire.audit import Severity
from fusewire.audit import audit as audit_queues
from fusewire.brokers import RabbitMQBroker
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
from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
            help="The management API, such as http://host:15672. Without it, most is not checked, "
            "and the exit status is 3. Its user is that of the address, unless it names one.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="json prints the findings as one array.")
    ] = Format.TEXT,
) -> None:
    """Find what could lose messages in the queues of a consumer on RabbitMQ.

    The audit changes nothing. The exit status is 0 if nothing could lose messages, 1 if something
    could, 2 if the audit could not run, and 3 if it found nothing but could not check most of it,
    because there is no management API.
    """
    try:
        queues = parse_topology(queue, lane, delay_tier, exchange, single=single)
        broker = RabbitMQBroker(address, management=management)
        with _client_log_silenced():
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


@contextlib.contextmanager
def _client_log_silenced() -> Iterator[None]:
    """Keep the client library from logging the error that `audit` prints itself."""
    loggers = [logging.getLogger(name) for name in ("aio_pika", "aiormq")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


async def _findings(broker: RabbitMQBroker, queues: Topology) -> Sequence[Finding]:
    async with broker:
        return await audit_queues(broker, queues)


_STYLES = {Severity.LOSS: "bold red", Severity.WARNING: "yellow", Severity.UNCHECKED: "dim"}


def _print(queues: Topology, findings: Sequence[Finding]) -> None:
    console = Console()
    for finding in findings:
        echo(console, f"{finding.severity}: {finding.subject}", style=_STYLES[finding.severity])
        echo(console, f"  {finding.what}")
        echo(console, f"  why: {finding.why}")
        first, *commands = finding.remedy.split("\n")
        echo(console, f"  do: {first}")
        for command in commands:
            echo(console, f"    {command}")
    counted = {
        severity: sum(finding.severity is severity for finding in findings) for severity in Severity
    }
    echo(
        console,
        f"{queues.source}: {counted[Severity.LOSS]} that could lose messages, "
        f"{counted[Severity.WARNING]} warnings, {counted[Severity.UNCHECKED]} not checked",
    )
