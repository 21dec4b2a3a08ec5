"""What a guarded gRPC call costs, next to a no-op interceptor's and OpenTelemetry's.

The server is another process. The kinds of channel take turns, a block of calls each, in an order
that changes from round to round, so that what disturbs the machine disturbs all. The ratios are of
one round each: to the no-op interceptor's block, or to the channel without any. What is printed is
the median of the rounds, with the middle half of them as the spread. CPU is this process's, of all
its threads; it is steadier than latency.

On a sync channel a no-op interceptor is one of ``grpc.intercept_channel``. What an idempotency key
costs is the difference between calls of an idempotent method, with a protobuf message, within an
operation and outside of one.

    pip install opentelemetry-instrumentation-grpc opentelemetry-sdk
    python benchmarks/interceptors.py --json interceptors.json

It exits with 1 if a target is missed. Of a block's CPU a third is chance, so it takes some hundred
rounds to tell a hundredth. On a machine with other work, as root on Linux, ``chrt --rr 1`` in front
of the command gives it precedence.
"""

# ruff: noqa: D102 - grpcio says what an interceptor's methods do

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.instrumentation.grpc import aio_client_interceptors, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import TracerProvider

from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import aio_interceptors, guard
from fusewire.operation import operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGES = 100  # in a stream
UNARY, STREAM = "/bench.Bench/Unary", "/bench.Bench/Stream"
KINDS = ("none", "no-op", "ours", "opentelemetry")
PAYLOAD = b"x" * 100

TARGETS = {
    "cpu, to the no-op interceptor's": 1.05,
    "sync rejection, to a call": 1 / 50,
    "asyncio rejection, to a call": 1 / 15,
}


class Handlers(grpc.GenericRpcHandler):
    """The server: echoes once, or a hundred times."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(_echo)
        return grpc.unary_stream_rpc_method_handler(_echo_often)


def _echo(request: bytes, _context: object) -> bytes:
    return request


def _echo_often(request: bytes, _context: object) -> Any:
    for _ in range(MESSAGES):
        yield request


class NoOp(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg] # not subscriptable at run time
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg] # not subscriptable at run time
):
    """The least that an interceptor can do."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)


class AioNoOpUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """The same on asyncio."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


class AioNoOpStream(grpc.aio.UnaryStreamClientInterceptor):
    """The same on asyncio."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


def sync_channel(kind: str, target: str) -> grpc.Channel:
    channel = grpc.insecure_channel(target)
    match kind:
        case "no-op":
            return grpc.intercept_channel(channel, NoOp())
        case "ours":
            return guard(channel, registry=BreakerRegistry())
        case "opentelemetry":
            return intercept_channel(channel, client_interceptor(TracerProvider()))
        case _:
            return channel


def aio_channel(kind: str, target: str) -> grpc.aio.Channel:
    match kind:
        case "no-op":
            interceptors: list[Any] = [AioNoOpUnary(), AioNoOpStream()]
        case "ours":
            interceptors = list(aio_interceptors(registry=BreakerRegistry()))
        case "opentelemetry":
            interceptors = list(aio_client_interceptors(TracerProvider()))
        case _:
            interceptors = []
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


class Figures:
    """CPU and latency per call, by round and kind, in seconds."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, tuple[float, float]]] = []

    def ratio(self, kind: str, to: str, which: int) -> tuple[float, float, float]:
        """Return the median of the rounds' ratios, and the ends of their middle half."""
        ratios = [one[kind][which] / one[to][which] for one in self.rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return middle, low, high

    def median(self, kind: str, which: int) -> float:
        return statistics.median(one[kind][which] for one in self.rounds)


async def measure(blocks: dict[str, Callable[[], Awaitable[int]]], rounds: int) -> Figures:
    """Let the kinds take turns; each block tells how many calls it has made."""
    figures = Figures()
    for block in blocks.values():
        await block()
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        found: dict[str, tuple[float, float]] = {}
        for kind in random.sample(list(blocks), len(blocks)):
            cpu, wall = time.process_time(), time.perf_counter()
            calls = await blocks[kind]()
            found[kind] = (
                (time.process_time() - cpu) / calls,
                (time.perf_counter() - wall) / calls,
            )
        figures.rounds.append(found)
        gc.collect()
    gc.enable()
    return figures


def sync_block(channel: grpc.Channel, *, stream: bool, calls: int) -> Callable[[], Awaitable[int]]:
    unary, streaming = channel.unary_unary(UNARY), channel.unary_stream(STREAM)

    async def block() -> int:
        for _ in range(calls):
            if stream:
                for _message in streaming(PAYLOAD):
                    pass
            else:
                unary(PAYLOAD)
        return calls

    return block


def aio_block(
    channel: grpc.aio.Channel, *, stream: bool, calls: int
) -> Callable[[], Awaitable[int]]:
    unary, streaming = channel.unary_unary(UNARY), channel.unary_stream(STREAM)

    async def block() -> int:
        for _ in range(calls):
            if stream:
                async for _message in streaming(PAYLOAD):
                    pass
            else:
                await unary(PAYLOAD)
        return calls

    return block


def sync_keyed(channel: grpc.Channel, calls: int, *, keyed: bool) -> Callable[[], Awaitable[int]]:
    unary = channel.unary_unary(UNARY, request_serializer=StringValue.SerializeToString)

    async def block() -> int:
        with operation("order-17") if keyed else contextlib.nullcontext():
            for number in range(calls):
                unary(StringValue(value=f"{number:100}"))
        return calls

    return block


def aio_keyed(
    channel: grpc.aio.Channel, calls: int, *, keyed: bool
) -> Callable[[], Awaitable[int]]:
    unary = channel.unary_unary(UNARY, request_serializer=StringValue.SerializeToString)

    async def block() -> int:
        with operation("order-17") if keyed else contextlib.nullcontext():
            for number in range(calls):
                await unary(StringValue(value=f"{number:100}"))
        return calls

    return block


def rejecting(breakers: BreakerRegistry) -> BreakerRegistry:
    breakers.get(UNARY).force_open()
    return breakers


def sync_rejections(channel: grpc.Channel, calls: int) -> Callable[[], Awaitable[int]]:
    unary = channel.unary_unary(UNARY)

    async def block() -> int:
        for _ in range(calls):
            try:
                unary(PAYLOAD)
            except grpc.RpcError:
                continue
        return calls

    return block


def aio_rejections(channel: grpc.aio.Channel, calls: int) -> Callable[[], Awaitable[int]]:
    unary = channel.unary_unary(UNARY)

    async def block() -> int:
        for _ in range(calls):
            try:
                await unary(PAYLOAD)
            except grpc.aio.AioRpcError:
                continue
        return calls

    return block


async def run(target: str, rounds: int, calls: int) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    sync = {kind: sync_channel(kind, target) for kind in KINDS}
    aio = {kind: aio_channel(kind, target) for kind in KINDS}
    for name, stream, number in (("unary", False, calls), ("stream", True, max(calls // 20, 1))):
        found[f"sync {name}"] = await measure(
            {kind: sync_block(sync[kind], stream=stream, calls=number) for kind in KINDS}, rounds
        )
        found[f"asyncio {name}"] = await measure(
            {kind: aio_block(aio[kind], stream=stream, calls=number) for kind in KINDS}, rounds
        )
    guards = aio_interceptors(registry=rejecting(BreakerRegistry()))
    open_sync = guard(grpc.insecure_channel(target), registry=rejecting(BreakerRegistry()))
    open_aio = grpc.aio.insecure_channel(target, interceptors=guards)
    found["sync rejection"] = await measure(
        {
            "call": sync_block(sync["ours"], stream=False, calls=calls),
            "rejection": sync_rejections(open_sync, calls * 10),
        },
        rounds,
    )
    found["asyncio rejection"] = await measure(
        {
            "call": aio_block(aio["ours"], stream=False, calls=calls),
            "rejection": aio_rejections(open_aio, calls * 10),
        },
        rounds,
    )
    idempotent: dict[str, Any] = {"registry": BreakerRegistry(), "idempotent": {UNARY}}
    keyed_sync = guard(grpc.insecure_channel(target), **idempotent)
    keyed_aio = grpc.aio.insecure_channel(target, interceptors=aio_interceptors(**idempotent))
    found["sync key"] = await measure(
        {
            kind: sync_keyed(keyed_sync, calls, keyed=kind == "keyed")
            for kind in ("without", "keyed")
        },
        rounds,
    )
    found["asyncio key"] = await measure(
        {kind: aio_keyed(keyed_aio, calls, keyed=kind == "keyed") for kind in ("without", "keyed")},
        rounds,
    )
    for channel in (*sync.values(), open_sync, keyed_sync):
        channel.close()
    for aio_one in (*aio.values(), open_aio, keyed_aio):
        await aio_one.close()
    return found


def show(found: dict[str, Figures]) -> tuple[dict[str, Any], bool]:
    """Print the table; tell its figures, and whether every target is met."""
    table: dict[str, Any] = {}
    met = True
    for name, figures in found.items():
        if "rejection" in name:
            middle, low, high = figures.ratio("rejection", "call", 1)
            target = TARGETS[f"{name}, to a call"]
            met &= middle <= target
            micro = figures.median("rejection", 1) * 1e6
            print(
                f"{name}: latency 1/{1 / middle:.0f} of a call (1/{1 / high:.0f} to "
                f"1/{1 / low:.0f}), {micro:.1f} us; target 1/{1 / target:.0f}"
            )
            table[name] = {"latency": [middle, low, high], "microseconds": micro}
            continue
        if "key" in name:
            middle, low, high = figures.ratio("keyed", "without", 0)
            micro = (figures.median("keyed", 0) - figures.median("without", 0)) * 1e6
            print(
                f"{name}: CPU {middle:.3f} of a call without ({low:.3f} to {high:.3f}), "
                f"{micro:.1f} us more"
            )
            table[name] = {"cpu": [middle, low, high], "microseconds": micro}
            continue
        for kind in KINDS:
            row = {"cpu_us": figures.median(kind, 0) * 1e6, "us": figures.median(kind, 1) * 1e6}
            row |= {
                f"{what}/{to}": figures.ratio(kind, to, which)
                for which, what in enumerate(("cpu", "latency"))
                for to in ("no-op", "none")
            }
            table[f"{name}, {kind}"] = row
            print(
                f"{name}, {kind}: {row['us']:.0f} us, CPU {row['cpu_us']:.0f} us; CPU to no-op "
                "{:.3f} ({:.3f} to {:.3f})".format(*row["cpu/no-op"])
                + ", latency to none {:.3f} ({:.3f} to {:.3f})".format(*row["latency/none"])
            )
        met &= figures.ratio("ours", "no-op", 0)[0] <= TARGETS["cpu, to the no-op interceptor's"]
    return table, met


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Handlers(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()  # until the other end is gone
    server.stop(None).wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--calls", type=int, default=40, help="calls in a block")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    with subprocess.Popen(  # noqa: S603 - itself
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("no pipes to the server")
        port = int(server.stdout.readline())
        found = asyncio.run(run(f"127.0.0.1:{port}", arguments.rounds, arguments.calls))
        server.stdin.close()
    table, met = show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))
    print("every target is met" if met else "a target is missed")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
