"""``fusewire reconcile``: asks a server whether dead calls were made, and clears up by its word."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fusewire._validation import SECONDS, check
from fusewire.brokers import Topology, open_broker
from fusewire.cli._exit import fail
from fusewire.cli._options import QueueOption  # noqa: TC001 - typer reads annotations when it runs
from fusewire.cli._output import Format, echo
from fusewire.errors import FusewireError, QueueNotFoundError, SettingsError

if TYPE_CHECKING:
    from rich.status import Status

    from fusewire.cli._operations import Operations
    from fusewire.forwarding.internal import Reconciled

_LEFT = 1


def reconcile(
    *,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="FUSEWIRE_ADDRESS",
            help="The broker: amqp:// or amqps:// with the virtual host, or sqlite:///FILE.",
            show_default=False,
        ),
    ],
    queue: QueueOption,
    target: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="The calls' server, as the forwarder reaches it."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the server, and change nothing.")
    ] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="KEY=VALUE",
            envvar="FUSEWIRE_METADATA",
            help="Metadata of the questions, a token for example; may be repeated.",
            show_default=False,
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS, and trust what the system trusts.")
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use TLS, and trust these certificates (PEM)."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our own certificate (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")
    ] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name in the server's certificate.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a question may take.")] = 10.0,
    output: Annotated[
        Format, typer.Option("--format", help="json prints an object for each call, one a line.")
    ] = Format.TEXT,
) -> None:
    """Ask a server whether dead calls were made of which nobody knows, and clear up.

    It asks about every dead call of the queue that is `ambiguous`, `stale-key` or `in-doubt`. The
    server needs the service fusewire.idempotency.v1.Operations. A call that was made or cancelled
    is removed from the dead queue. One that was refused for good is marked `refused` there. One
    that was not made is put back into the lane `other`, if the server would recognize it, and the
    forwarder makes it. All others stay as they are, and so does everything else that is dead. Where
    outcomes are kept (NAME.replies), what was answered is put back too: the forwarder gets the
    recorded answer, and brings it home.

    Each call is printed before anything is done with it. Nothing is lost if the command is killed:
    run it again. The exit status is 0 if no such call stays, 1 if some do, and 2 if the command
    could not run or was broken off.
    """
    # Imported here: gRPC loads slowly, and other commands do without.
    from fusewire.cli._operations import Operations, Tls  # noqa: PLC0415 - see above

    files = Tls(ca=tls_ca, certificate=tls_certificate, key=tls_key, server_name=tls_server_name)
    report = _Report(output, dry_run=dry_run)
    try:
        check("--timeout", timeout, SECONDS)
        server = Operations(
            target=target,
            tls=files if tls or files != Tls() else None,
            metadata=_pairs(metadata or []),
            timeout=timeout,
        )
        with Console(stderr=True).status("connecting") as status:
            asyncio.run(_reconcile(address, queue, server, report, status))
    except QueueNotFoundError as error:
        fail("reconcile", f"{error}: has a forwarder of the queue {queue!r} ever run here?")
    except (FusewireError, OSError) as error:
        fail("reconcile", str(error))
    report.summarize(queue)
    if report.left:
        raise typer.Exit(_LEFT)


async def _reconcile(
    address: str, queue: str, server: Operations, report: _Report, status: Status
) -> None:
    """Go through the dead queue once."""
    from fusewire.forwarding.internal import Reconciling  # noqa: PLC0415 - see above

    def record(end: Reconciled) -> None:
        report.record(end)
        status.update(f"{report.count} calls asked about")

    async with server.connected() as ask, open_broker(address) as broker:
        passing = Reconciling(broker, Topology(queue), ask, record, dry_run=report.dry_run)
        status.update("reading the dead queue")
        await passing.run()


class _Report:
    """Prints what becomes of each call, and counts."""

    def __init__(self, output: Format, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._as_json = output is Format.JSON
        self._console = Console()
        self._deeds: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many calls there were."""
        return self._deeds.total()

    @property
    def left(self) -> int:
        """How many of them stay as they are."""
        return self._deeds["left"]

    def record(self, end: Reconciled) -> None:
        """Print what becomes of a call, so that it is known before it is done."""
        call, first = end.call, not self.count
        self._deeds[end.deed] += 1
        if self._as_json:
            found = {
                "operation_id": call.history.operation_id,
                "method": call.method,
                "reason": call.history.reason,
                "server": str(end.word),
                "action": str(end.deed),
                "why": end.why,
                "first_sent_ms": call.first_sent_ms,
                "dry_run": self.dry_run,
            }
            typer.echo(json.dumps(found))
            return
        if first:
            self._row("action", "the server says", "reason", "operation", "method")
        self._row(end.deed, end.word, call.history.reason, call.history.operation_id, call.method)
        if end.why:
            echo(self._console, f"  {end.why}", style="dim")

    def summarize(self, queue: str) -> None:
        """Print how many calls became what."""
        if self._as_json:
            return
        counts = ", ".join(f"{count} {deed}" for deed, count in sorted(self._deeds.items()))
        would = "; nothing was changed (--dry-run)" if self.dry_run else ""
        echo(
            self._console,
            f"{queue}: {self.count} dead calls that may have been made"
            f"{f': {counts}' if counts else ''}{would}",
        )

    def _row(self, *cells: str) -> None:
        action, word, reason, *others = cells
        echo(self._console, f"{action:<9} {word:<15} {reason:<10} {'  '.join(others)}")


def _pairs(given: list[str]) -> tuple[tuple[str, str | bytes], ...]:
    pairs: list[tuple[str, str | bytes]] = []
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise SettingsError("--metadata must be KEY=VALUE")  # not what it is: a secret, mostly
        pairs.append((key.lower(), value))
    return tuple(pairs)
