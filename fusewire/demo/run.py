"""Running the demo for a person or a program, and ending it in order when it is interrupted."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from fusewire.demo.queues import is_rabbitmq
from fusewire.demo.scenario import Demo
from fusewire.demo.view import report, showing

if TYPE_CHECKING:
    from fusewire.demo.reckoning import Reckoning
    from fusewire.demo.setting import Plan

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # SIGINT is asyncio.run()'s own


def run_demo(plan: Plan, *, as_json: bool = False) -> int:
    """Run the demo, show it, and return the exit status: 1 if anything was lost or made twice.

    Args:
        plan: how to run it.
        as_json: end with the ledger as one JSON object on one line of the standard output, and
            show everything else on the standard error.

    Raises:
        DemoError: it could not be run to its end.
        BrokerError: the broker cannot be used.
        KeyboardInterrupt: it was interrupted; its processes have ended.
    """
    console = Console(stderr=as_json)
    where = "RabbitMQ" if is_rabbitmq(plan.broker or "") else "the embedded broker"
    console.print(
        f"{plan.rate:g} payments and {plan.order_rate:g} orders a second, on {where}. After "
        f"{plan.healthy:g} s the payments server is killed; {plan.outage:g} s later it is started "
        "again.",
        highlight=False,
    )
    with showing(console) as display:
        demo = Demo(plan, display)
        reckoning = asyncio.run(_interruptible(demo))
    report(console, reckoning, demo.timeline())
    if as_json:
        sys.stdout.write(json.dumps(reckoning.as_json()) + "\n")
    return 1 if reckoning.faults else 0


async def _interruptible(demo: Demo) -> Reckoning:
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if running is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, running.cancel)
    return await demo.run()
