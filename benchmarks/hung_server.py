"""What a hung server costs, before and after the circuit opens: python -m benchmarks.hung_server.

A payments server in another process is stopped with SIGSTOP: connections stay open and nothing
answers. Each of the first calls takes its whole deadline; once the circuit is open, a rejection
is measured.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire import BreakerRegistry, BreakerSettings, aio_interceptors, guard
from fusewire.demo.payments.v1.payments_pb2 import GetBalanceRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from tests.support.payments import PaymentsProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 1.0  # seconds
REJECTIONS = 2000


def registry() -> BreakerRegistry:
    return BreakerRegistry(BreakerSettings(failure_threshold=3, recovery_timeout=60))


def figures(hung: list[float], rejected: list[float]) -> dict[str, Any]:
    rejected.sort()
    return {
        "deadline_s": DEADLINE,
        "hung_call_s": [round(taken, 3) for taken in hung],
        "rejection_us": {
            "p50": round(statistics.median(rejected) * 1e6, 1),
            "p99": round(rejected[int(len(rejected) * 0.99)] * 1e6, 1),
            "max": round(rejected[-1] * 1e6, 1),
        },
    }


def measure_sync(target: str) -> dict[str, Any]:
    with guard(grpc.insecure_channel(target), registry=registry()) as channel:
        stub = PaymentsStub(channel)
        request = GetBalanceRequest(account="a")

        def calls(count: int) -> Iterator[float]:
            for _ in range(count):
                begin = time.perf_counter()
                try:
                    stub.GetBalance(request, timeout=DEADLINE)
                except grpc.RpcError:
                    yield time.perf_counter() - begin

        return figures(list(calls(3)), list(calls(REJECTIONS)))


async def measure_aio(target: str) -> dict[str, Any]:
    interceptors = aio_interceptors(registry=registry())
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        stub = PaymentsStub(channel)
        request = GetBalanceRequest(account="a")

        async def calls(count: int) -> list[float]:
            taken = []
            for _ in range(count):
                begin = time.perf_counter()
                try:
                    await stub.GetBalance(request, timeout=DEADLINE)
                except grpc.RpcError:
                    taken.append(time.perf_counter() - begin)
            return taken

        return figures(await calls(3), await calls(REJECTIONS))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = PaymentsProcess(Path(folder))
        server.start()
        try:
            server.hang()
            print("sync", json.dumps(measure_sync(server.target)))
            print("asyncio", json.dumps(asyncio.run(measure_aio(server.target))))
        finally:
            server.close()


if __name__ == "__main__":
    main()
