"""A user of ParkedCalls that any release can run.

``fleet_caller.py ADDRESS QUEUE TARGET FOLDER NAME FIRST COUNT`` calls ``/shop.Payments/Charge`` and
``/shop.Payments/Give`` that many times each, with numbers from FIRST on, while their circuits are
open, and ends. Each receipt is a line of FOLDER's file ``pending``. Without FIRST and COUNT it
forwards what is parked, until SIGTERM.

It imports nothing of the tests, because those of another release may lie beside its Fusewire.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc.aio

import fusewire
from fusewire import BreakerRegistry, BreakerSettings
from fusewire.forwarding import ParkedCalls
from fusewire.interceptors import aio_interceptors

try:
    from fusewire.parking import RetryPolicy
except ImportError:  # an older release
    POLICIES: Any = {"delay_tiers": (0.05, 0.2)}
else:
    POLICIES = {"retry": RetryPolicy(delays=(0.05, 0.2))}

IDEMPOTENT, AT_MOST_ONCE = "/shop.Payments/Charge", "/shop.Payments/Give"


def pending(request: bytes, receipt: Any) -> bytes:
    """Make the reply to a call that is parked."""
    return b"%s pending %s\n" % (request, receipt.operation_id.encode())


async def main(address: str, queue: str, target: str, folder: str, *more: str) -> None:
    """Park calls, or forward what is parked until SIGTERM."""
    name, first, count = (*more, "0", "0")[:3]
    numbers = range(int(first), int(first) + int(count))
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1, recovery_timeout=0.2))
    log = os.open(Path(folder) / "pending", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with ParkedCalls(address, queue=queue, registry=registry, **POLICIES) as calls:
        fallbacks = {
            IDEMPOTENT: calls.park(reply=pending, idempotent=True, metadata=["tenant"]),
            AT_MOST_ONCE: calls.park(reply=pending, at_most_once=True),
        }
        interceptors = aio_interceptors(registry=registry, fallbacks=fallbacks)
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=options
        ) as channel:
            if not numbers:
                forwarder = calls.forward_to(channel)
                os.write(log, f"{fusewire.__file__} {name}\n".encode())
                await over.wait()
                await forwarder.end()
            for method in (IDEMPOTENT, AT_MOST_ONCE) if numbers else ():
                registry.get(method).force_open()
                call = channel.unary_unary(method)
                for number in numbers:
                    key = f"{method.rpartition('/')[2]}-{number}"
                    metadata = (("idempotency-key", key), ("tenant", "blue"))
                    os.write(log, await call(b"tea", timeout=5, metadata=metadata))


asyncio.run(main(*sys.argv[1:]))
