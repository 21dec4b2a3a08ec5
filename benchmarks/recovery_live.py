"""The live traffic of the recovery run: calls at random times, through a guarded channel.

They come as a Poisson process, at a rate that does not depend on how fast they are answered. Each
is written down: when it began, how long it took, and how it ended; ``REJECTED`` is one that the
client's own circuit kept out.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from benchmarks.recovery_record import Record
from benchmarks.recovery_replica import CHANNEL_OPTIONS
from benchmarks.recovery_server import LIVE
from fusewire.breaker import BreakerRegistry, CircuitOpenError
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors

if TYPE_CHECKING:
    from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsAsyncStub

DEADLINE = 2.0  # seconds


async def call(payments: PaymentsAsyncStub, record: Record) -> None:
    """Make one call, and write it down."""
    began = time.monotonic()
    try:
        await payments.Charge(ChargeRequest(account="live"), timeout=DEADLINE, metadata=(LIVE,))
    except CircuitOpenError:
        code = "REJECTED"
    except grpc.aio.AioRpcError as error:
        code = error.code().name
    else:
        code = "OK"
    record.write("call", began, took=time.monotonic() - began, code=code)


async def run(target: str, rate: float, record: Record) -> None:
    """Make `rate` calls a second until killed, from when the server answers."""
    interceptors = aio_interceptors(registry=BreakerRegistry())
    async with (
        grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=CHANNEL_OPTIONS
        ) as channel,
        asyncio.TaskGroup() as group,
    ):
        await channel.channel_ready()
        payments = PaymentsStub(channel)
        group.create_task(record.note_usage())
        due = time.monotonic()
        record.write("ready")
        while True:
            due += random.expovariate(rate)
            await asyncio.sleep(due - time.monotonic())
            group.create_task(call(payments, record))


def main() -> None:
    """Make calls as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.target, arguments.rate, Record(arguments.record)))


if __name__ == "__main__":
    main()
