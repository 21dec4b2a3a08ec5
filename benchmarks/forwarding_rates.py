"""How fast stored calls are made, next to a loop that somebody writes by hand.

The shop makes calls until the circuit opens, stores more of them, and a forwarder waits. What is
measured begins when the circuit closes, so it includes that the forwarder begins with few calls at
a time. The loop has its subscription to begin with, and all its places.

``python -m benchmarks.forwarding_rates PORT`` is the server, which answers at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from concurrent import futures
from typing import TYPE_CHECKING, Any

import aio_pika
import grpc
import grpc.aio

from fusewire.breaker import BreakerRegistry
from fusewire.forwarding import ParkedCalls, ParkPolicy
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ReplayPolicy
from tests.support.waiting import until

if TYPE_CHECKING:
    import argparse

CHARGE = "/bench.Payments/Charge"
BODY = b"x" * 200
POLICY = ParkPolicy(idempotent=True, reply=lambda *_: b"pending")
IN_FLIGHT = 20  # calls that are forwarded at a time
LIVE_CALLS = 400  # that the shop makes before the outage
RATES = {"guarded": 0.85, "bare": 0.80}


class Server(grpc.GenericRpcHandler):
    """Answers at once."""

    def service(self, _: grpc.HandlerCallDetails) -> Any:  # noqa: D102 - as grpcio says
        return grpc.unary_unary_rpc_method_handler(lambda *_: b"charged")


def serve(port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Server()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def channel_to(target: str, registry: BreakerRegistry | None) -> grpc.aio.Channel:
    interceptors = None if registry is None else aio_interceptors(registry=registry)
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


async def forwarded(url: str, target: str, count: int) -> float:
    """Return how many stored calls are made in a second."""
    registry = BreakerRegistry()
    made, all_made = 0, asyncio.Event()

    def hear(event: Any) -> None:
        nonlocal made
        made += event.outcome == "replayed"
        if made == count:
            all_made.set()

    calls = ParkedCalls(
        url,
        queue=f"bench-{uuid.uuid4().hex}",
        registry=registry,
        methods={CHARGE: POLICY},
        replay=ReplayPolicy(concurrency=IN_FLIGHT),
    )
    calls.add_listener(hear)
    async with calls, channel_to(target, registry) as channel:
        charge = channel.unary_unary(CHARGE)
        for _ in range(LIVE_CALLS // IN_FLIGHT):
            await asyncio.gather(*(charge(BODY, timeout=5) for _ in range(IN_FLIGHT)))
        registry.get(CHARGE).force_open()
        for _ in range(count // 100):
            await asyncio.gather(*(calls.submit(CHARGE, BODY) for _ in range(100)))
        async with calls.forward_to(channel):
            await until(lambda: calls.status().subscribed)
            began = time.perf_counter()
            registry.get(CHARGE).reset()
            await all_made.wait()
            return count / (time.perf_counter() - began)


async def plain(url: str, target: str, count: int, registry: BreakerRegistry | None) -> float:
    """Return the same of a loop that somebody writes by hand."""
    connection = await aio_pika.connect(url)
    async with connection, channel_to(target, registry) as channel:
        amqp = await connection.channel(publisher_confirms=True)
        await amqp.set_qos(IN_FLIGHT)
        queue = await amqp.declare_queue(
            f"bench-{uuid.uuid4().hex}", durable=True, arguments={"x-queue-type": "quorum"}
        )
        for _ in range(count // 100):
            messages = [
                aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                for _ in range(100)
            ]
            publish = amqp.default_exchange.publish
            await asyncio.gather(*(publish(each, queue.name) for each in messages))
        charge = channel.unary_unary(CHARGE)
        made, all_made = 0, asyncio.Event()

        async def handle(message: Any) -> None:
            nonlocal made
            await charge(message.body, timeout=5, metadata=(("idempotency-key", "k"),))
            await message.ack()
            made += 1
            if made == count:
                all_made.set()

        began = time.perf_counter()
        await queue.consume(handle)
        await all_made.wait()
        return count / (time.perf_counter() - began)


async def rates(url: str, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Measure laps of forwarding, each beside a lap of both plain loops."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in RATES}
    port = str(options.port)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.forwarding_rates", port
    )
    target = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
        for lap in range(options.laps + 1):
            ours = await forwarded(url, target, options.forwarded)
            for name in RATES:
                registry = BreakerRegistry() if name == "guarded" else None
                theirs = await plain(url, target, options.forwarded, registry)
                if lap:  # the first warms up
                    found[name].append((ours, theirs))
    finally:
        server.terminate()
        await server.wait()
    return found


if __name__ == "__main__":
    serve(sys.argv[1])
