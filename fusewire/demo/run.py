"""Runs the demo for a person or a program, and ends it in order on an interrupt.

This is what the command takes of the demo.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from fusewire.demo._config import Plan
from fusewire.demo._page import check_target, write_page
from fusewire.demo._queues import is_rabbitmq
from fusewire.demo._scenario import Demo
from fusewire.demo._subprocesses import DemoError
from fusewire.demo._verdict import show_report
from fusewire.demo._view import showing

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.demo._report import Report

__all__ = ["Plan", "run_demo"]

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # SIGINT is asyncio.run()'s own


def run_demo(plan: Plan, *, as_json: bool = False, page: Path | None = None) -> int:
    """Run the demo, show it, and return the exit status: 1 if anything was lost or charged twice.

    Args:
        plan: how to run it.
        as_json: print the report as one JSON object on the last line of the standard output, and
            everything else on the standard error.
        page: the file to write the report to, as a page of HTML.

    Raises:
        SettingsError: a page cannot be written there.
        DemoError: the demo could not be completed, or its page not be written; or it has to serve
            metrics, and lacks the library for that.
        BrokerError: the broker cannot be used.
        KeyboardInterrupt: the demo was interrupted; its processes have ended.
    """
    if page is not None:
        check_target(page)
    if plan.metrics is not None:
        _check_that_metrics_can_be_served()
    console = Console(stderr=as_json)
    where = "RabbitMQ" if is_rabbitmq(plan.broker or "") else "the embedded broker"
    console.print(
        f"{plan.rate:g} payments and {plan.order_rate:g} orders a second, on {where}, and the same "
        "payments by two clients without Fusewire. After "
        f"{plan.restart:g} s the payments server is restarted under load; after {plan.healthy:g} s "
        f"it is killed, and {plan.outage:g} s later it is started again.",
        highlight=False,
    )
    with showing(console) as display:
        demo = Demo(plan, display)
        report = asyncio.run(_interruptible(demo))
    show_report(console, report, demo.course)
    if page is not None:
        try:
            write_page(page, plan, report, demo.course)
        except OSError as error:
            raise DemoError(f"the report could not be written to {page}: {error}") from error
        console.print(f"The report: {page}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json()) + "\n")
    return 1 if report.faults else 0


def _check_that_metrics_can_be_served() -> None:
    try:
        import fusewire.telemetry.prometheus  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise DemoError(f"metrics cannot be served: {error}") from error


async def _interruptible(demo: Demo) -> Report:
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if running is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, running.cancel)
    return await demo.run()
