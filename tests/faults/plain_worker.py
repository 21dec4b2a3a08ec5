"""A worker in a process of its own, on either broker: ``plain_worker.py JSON``.

The JSON is an object: ``address``, ``queue``, ``target`` of the payments server, ``journal`` and
``folder`` for what it notes, ``handler`` (a name of HANDLERS), ``forks`` (how many processes to
fork, each of which works; 0 for none) and ``ahead`` (a file with the seconds by which its wall
clock is ahead, or empty).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import open_broker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer, ReplayPolicy, RetryPolicy
from fusewire.testing.faults import Journal
from tests.faults.armed_worker import DELAY_TIERS, LANE, may_have_taken_effect
from tests.support.payments import CHANNEL_OPTIONS, CHARGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Broker

POISON = "poison"
"""The reference of the order that kills the process that handles it."""
PARTS = 3
"""Charges that a handler of ``in_another_order`` makes for one order."""
_FAILURES = 2  # of the attempts at one order, before all of its charges are made
_CONCURRENCY = 10
_SLOW = 0.1  # seconds that a handler takes, so that others are in flight beside it


class Work:
    """What handlers need."""

    def __init__(self, stub: Any, journal: Journal, folder: Path) -> None:
        self._stub = stub
        self._journal = journal
        self._folder = folder

    async def charge(self, operation: str, request: ChargeRequest) -> None:
        """Make one charge."""
        self._journal.began(operation)
        try:
            await self._stub.Charge(request, timeout=2)
        except grpc.aio.AioRpcError as error:
            if may_have_taken_effect(error):
                self._journal.doubt(operation, f"a call got no answer: {error.code().name}")
            raise

    async def one(self, message: AbstractIncomingMessage) -> None:
        """Make the charge that an order asks for."""
        request = ChargeRequest.FromString(message.body)
        if request.reference.endswith(POISON):
            await asyncio.sleep(_SLOW)
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(_SLOW)
        await self.charge(message.message_id or "", request)

    async def in_another_order(self, message: AbstractIncomingMessage) -> None:
        """Make several charges, in another order on each attempt, and fail in between."""
        order = ChargeRequest.FromString(message.body)
        parts = [
            ChargeRequest(
                account=order.account,
                amount_cents=order.amount_cents,
                currency=order.currency,
                reference=f"{order.reference}.{part}",
            )
            for part in range(PARTS)
        ]
        attempt = len(list(self._folder.glob(f"{order.reference}.attempt-*")))
        (self._folder / f"{order.reference}.attempt-{attempt}").touch()
        random.shuffle(parts)
        made = random.randrange(PARTS) if attempt < _FAILURES else PARTS
        for part in parts[:made]:
            self._journal.doubt(part.reference, "its handler may make it again")
            await self.charge(message.message_id or "", part)
        if made < PARTS:
            raise RuntimeError("between two charges")


HANDLERS = {"one": Work.one, "in_another_order": Work.in_another_order}


async def work(order: dict[str, Any], registry: BreakerRegistry) -> None:
    """Consume until SIGTERM."""
    journal = Journal(f"{order['journal']}-{os.getpid()}")
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    async with grpc.aio.insecure_channel(
        order["target"], interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        stub: Any = PaymentsStub(channel)
        handler = HANDLERS[order["handler"]].__get__(Work(stub, journal, Path(order["folder"])))
        async with (
            broker_of(order) as broker,
            ParkingConsumer(
                journal.watch(broker),
                queue=order["queue"],
                handler=handler,
                registry=registry,
                depends_on=CHARGE,
                lanes={LANE: [CHARGE]},
                retry=RetryPolicy(delays=DELAY_TIERS),
                concurrency=_CONCURRENCY,
                replay=ReplayPolicy(concurrency=_CONCURRENCY),
            ) as consumer,
        ):
            await consumer.run()


def broker_of(order: dict[str, Any]) -> Broker:
    """Return the broker that an order names, with a wall clock that a file sets ahead."""
    if not order["ahead"]:
        return open_broker(order["address"])
    return SQLiteBroker(
        order["address"].removeprefix("sqlite:///"),
        clock=lambda: time.time() + float(Path(order["ahead"]).read_text() or 0),
    )


def fork(count: int, child: Callable[[], Awaitable[None]], registry: BreakerRegistry) -> None:
    """Fork workers while other threads of this process use the breakers; wait for their end."""
    over = threading.Event()

    def use() -> None:
        breaker = registry.get(CHARGE)
        while not over.is_set():
            if breaker.can_execute():
                breaker.acquire().success()
            breaker.snapshot()

    sys.setswitchinterval(1e-6)  # so that a fork finds one of them in the middle of something
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            sys.setswitchinterval(0.005)
            asyncio.run(child())  # type: ignore[arg-type] # a coroutine function
            os._exit(0)
        pids.append(pid)
        time.sleep(0.05)
    over.set()
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in pids])
    for pid in pids:  # their ids are theirs, for the signal, until somebody asks for the status
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def main(order: dict[str, Any]) -> None:
    """Work as `order` says."""
    registry = BreakerRegistry(
        BreakerSettings(failure_threshold=3, recovery_timeout=0.3, half_open_max_calls=2)
    )
    if order["forks"]:
        fork(order["forks"], lambda: work(order, registry), registry)
    else:
        asyncio.run(work(order, registry))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
