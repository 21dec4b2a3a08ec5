"""Whatever goes wrong and in whatever order calls are made, each payment is made exactly once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent import futures
from typing import Any, Self

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors
from fusewire.operation import operation

CHARGE = "/shop.Payments/Charge"
MESSAGES, PAYMENTS = 40, 5
_BEFORE, _AFTER = 0.1, 0.2
"""Luck below which a call fails before its effect, or after it."""


class UnluckyServer(grpc.GenericRpcHandler):
    """Honors keys, and fails a fifth of the calls: half before their effect, half after it.

    Args:
        seed: of its luck.
    """

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._luck = random.Random(seed)
        self._known: dict[str, bytes] = {}
        self.effects: Counter[bytes] = Counter()
        self.reused: list[str] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(self._charge)

    def _charge(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        key = str(dict(context.invocation_metadata())["idempotency-key"])
        with self._lock:
            luck = self._luck.random()
            if luck >= 0.25:
                if key not in self._known:
                    self._known[key] = request
                    self.effects[request] += 1
                elif self._known[key] != request:
                    self.reused.append(key)
        if luck < 0.5:
            context.abort(grpc.StatusCode.UNAVAILABLE, "out of luck")
        return request


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_each_payment_is_made_once_whatever_order_the_calls_have(  # noqa: C901 - a handler in full
    seed: int,
) -> None:
    chance = random.Random(seed)
    patient = BreakerSettings(failure_threshold=1_000_000)
    interceptors = aio_interceptors(patient, registry=BreakerRegistry(), idempotent={CHARGE})
    names = [f"m{number}" for number in range(MESSAGES)]
    with UnluckyServer(seed) as server:
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            charge: Any = channel.unary_unary(CHARGE)

            async def pay(request: bytes) -> None:
                try:
                    await charge(request, timeout=10)
                except grpc.RpcError:
                    if chance.random() < 0.5:
                        raise
                    await charge(request, timeout=10)  # a retry within the handler

            async def handle(name: str) -> None:
                # Two of the payments are equal, and both are owed.
                owed = [f"{name}/{max(number, 1)}".encode() for number in range(PAYMENTS)]
                chance.shuffle(owed)
                if chance.random() < 0.5:
                    async with asyncio.TaskGroup() as group:  # cancels the others when one fails
                        for request in owed:
                            group.create_task(pay(request))
                else:
                    for request in owed:
                        await pay(request)

            async def attempt(name: str) -> bool:
                with operation(name):
                    try:
                        await handle(name)
                    except (grpc.RpcError, ExceptionGroup):
                        return False
                return True

            waiting = names
            while waiting:
                ends = await asyncio.gather(*map(attempt, waiting))
                waiting = [name for name, ended in zip(waiting, ends, strict=True) if not ended]
    assert server.reused == []
    assert server.effects == {
        f"{name}/{number}".encode(): 2 if number == 1 else 1
        for name in names
        for number in range(1, PAYMENTS)
    }
