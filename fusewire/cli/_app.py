"""The commands of ``fusewire``."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import Annotated

import typer

from fusewire.cli._audit import audit
from fusewire.cli._config import config
from fusewire.cli._exit import fail
from fusewire.cli._forward import forward
from fusewire.cli._idempotency import idempotency
from fusewire.cli._reconcile import reconcile
from fusewire.cli._topology import topology
from fusewire.errors import FusewireError

_INTERRUPTED = 130
_DEMO_NEEDS = {"jinja2", "markupsafe", "rich"}

app = typer.Typer(
    name="fusewire",
    help="Circuit breakers for gRPC clients, with parking so that no work is lost.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show addresses with passwords.
    pretty_exceptions_show_locals=False,
)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        typer.echo(f"fusewire {version('fusewire')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Circuit breakers for gRPC clients, with parking so that no work is lost."""
    del show_version  # its callback has dealt with it


@app.command()
def demo(
    *,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="amqp:// or amqps:// for RabbitMQ; by default the embedded broker.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the report as one JSON object on the last line."),
    ] = False,
    rate: Annotated[float, typer.Option(help="Payments per second.")] = 40.0,
    healthy: Annotated[float, typer.Option(help="Seconds before and after the outage.")] = 8.0,
    outage: Annotated[float, typer.Option(help="Seconds that the server is down.")] = 12.0,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report to this file, as a page of HTML."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder that keeps the ledger and the logs."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve metrics for Prometheus here, and those of the orders at the next port.",
        ),
    ] = None,
) -> None:
    """Kill a payments server under load, and check that no payment is lost or made twice.

    A client charges at a steady rate, and a consumer charges for orders. The server is restarted,
    then killed, and started again. Two clients without Fusewire make the same payments: a bare
    one, and one with gRPC's own retry policy. The report compares what was promised with the
    server's own records. The exit status is 1 if anything was lost or charged twice, and 2 if the
    demo could not run.
    """
    # Imported here: they need the demo's extra, and load slowly.
    try:
        from fusewire.demo.run import Plan, run_demo  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _DEMO_NEEDS:
            raise
        fail(
            "demo",
            f"the demo needs {missing}, which is not installed: pip install 'fusewire[demo]'",
        )
    try:
        plan = Plan(
            broker=broker, rate=rate, healthy=healthy, outage=outage, keep=keep, metrics=metrics
        )
        status = run_demo(plan, as_json=as_json, page=report)
    except FusewireError as error:
        fail("demo", str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("fusewire demo: interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(status)


app.command()(topology)
app.command()(audit)
app.command()(forward)
app.command()(reconcile)
app.add_typer(config)
app.add_typer(idempotency)
