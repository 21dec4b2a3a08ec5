"""A worker that any release can run: ``fleet_worker.py ADDRESS QUEUE FOLDER NAME [LATER]``.

Its dependency is down while FOLDER has a file ``down``. Each message whose number ends in 5 fails
once, whichever worker has it, and each that begins with ``later`` is postponed once, by LATER
seconds. Each one that is handled is a line of FOLDER's file ``handled``.

It imports nothing of the tests, because those of another release may lie beside its Fusewire.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusewire
from fusewire import BreakerRegistry, BreakerSettings, ParkingConsumer, Retry

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

try:
    from fusewire.parking import ReplayPolicy, RetryPolicy
except ImportError:  # an older release
    POLICIES: Any = {"delay_tiers": (0.05, 0.2)}
else:
    POLICIES = {
        "retry": RetryPolicy(delays=(0.05, 0.2)),
        "replay": ReplayPolicy(concurrency=10),  # as many as the older release replays
    }

DEPENDENCY = "payments"


async def main(address: str, queue: str, folder: str, name: str, later: str = "0") -> None:
    """Consume, park and replay until SIGTERM."""
    home = Path(folder)
    handled = os.open(home / "handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1, recovery_timeout=0.2))

    @registry.get(DEPENDENCY)
    async def pay() -> None:
        if (home / "down").exists():
            raise ConnectionError("the payments server is down")

    def is_first(number: str) -> bool:
        try:
            os.close(os.open(home / f"tried {number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    async def handler(message: AbstractIncomingMessage) -> None:
        number = message.body.decode()
        if number.startswith("later") and is_first(number):
            raise Retry(after=float(later))
        if number.endswith("5") and is_first(number):
            raise RuntimeError("fails once")
        await pay()
        os.write(handled, f"{number} {name}\n".encode())

    async with ParkingConsumer(
        address,
        queue=queue,
        handler=handler,
        depends_on=DEPENDENCY,
        registry=registry,
        concurrency=5,
        **POLICIES,
    ) as consumer:
        os.write(handled, f"{fusewire.__file__} {name}\n".encode())
        await consumer.run()


asyncio.run(main(*sys.argv[1:]))
