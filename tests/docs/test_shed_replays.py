"""The servers that shed replays first: those of examples/, and the one that docs/recovery.md shows.

A call is marked as the interceptors of a client mark those of a replay.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import aio_interceptors
from fusewire.operation import REPLAY_METADATA, operation
from tests.docs.examples import run_examples
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MARK = ((REPLAY_METADATA, "1"),)
CHARGE = "/shop.Payments/Charge"
KINDS = ["shed_replays_aio", "shed_replays_sync"]


def load(name: str) -> ModuleType:
    """Import a program of examples/ without running it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class AioPayments:
    """Handlers that run until the gate is open."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._gate = asyncio.Event()

    def open(self) -> None:
        self._gate.set()

    async def charge(self, request: bytes, context: Any) -> bytes:
        self.ran.append(request.decode())
        await self._gate.wait()
        return request


class SyncPayments:
    """The same in threads."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._gate = threading.Event()

    def open(self) -> None:
        self._gate.set()

    def charge(self, request: bytes, context: Any) -> bytes:
        self.ran.append(request.decode())
        self._gate.wait(30)
        return request


def serve(server: Any, payments: AioPayments | SyncPayments) -> int:
    """Offer the payments, and return the port."""
    methods: Any = {"Charge": grpc.unary_unary_rpc_method_handler(payments.charge)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("shop.Payments", methods)]
    )
    return int(server.add_insecure_port("127.0.0.1:0"))


class Ends(grpc.ServerInterceptor):
    """Counts the calls that have ended, of whatever."""

    def __init__(self) -> None:
        self.count = 0

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)

        def counted(request: Any, context: grpc.ServicerContext) -> Any:
            context.add_callback(self._add)
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(counted)

    def _add(self) -> None:
        self.count += 1


class Shop:
    """A client of a server that makes one payment at a time, and lets two wait."""

    def __init__(
        self, payments: AioPayments | SyncPayments, queue: Any, ends: Ends, port: int
    ) -> None:
        self.target = f"127.0.0.1:{port}"
        self.payments = payments
        self.queue = queue
        self._ends = ends
        self._channel = grpc.aio.insecure_channel(self.target)
        self._charge: Any = self._channel.unary_unary(CHARGE)

    async def call(self, reference: str, *, replay: bool = False, waits: int | None = None) -> Any:
        """Call, and go on when as many wait."""
        call = self._charge(reference.encode(), timeout=30, metadata=MARK if replay else ())
        if waits is not None:
            await until(lambda: self.queue.waiting == waits)
        return call

    async def left(self) -> None:
        """Wait until the server knows that a caller has gone."""
        if isinstance(self.payments, AioPayments):
            await until(lambda: self.queue.waiting == 1)
        else:
            await until(lambda: self._ends.count == 1)

    async def close(self) -> None:
        self.payments.open()
        await self._channel.close()


@pytest.fixture(params=KINDS)
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    module = load(request.param)
    queue = module.BoundedQueue(at_a_time=1, most_waiting=2)
    interceptors = [module.SheddingInterceptor(queue)]
    ends = Ends()
    payments: AioPayments | SyncPayments
    server: Any
    if request.param.endswith("_aio"):
        payments, server = AioPayments(), grpc.aio.server(interceptors=interceptors)
    else:
        payments = SyncPayments()
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[ends, *interceptors])
    port = serve(server, payments)
    if (starting := server.start()) is not None:
        await starting
    shop = Shop(payments, queue, ends, port)
    yield shop
    await shop.close()
    stopping = server.stop(0)
    if isinstance(stopping, threading.Event):
        await asyncio.to_thread(stopping.wait, 10)
    else:
        await stopping


async def running(shop: Shop, reference: str) -> Any:
    call = await shop.call(reference)
    await until(lambda: reference in shop.payments.ran)
    return call


async def test_replays_make_room_for_live_calls_when_the_queue_is_full(shop: Shop) -> None:
    first = await running(shop, "first")
    replays = [await shop.call(f"replay {n}", replay=True, waits=n) for n in (1, 2)]
    third = await shop.call("replay 3", replay=True)
    assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # and no other for its sake

    live = [await shop.call("live 1", waits=2)]
    assert await replays[1].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    live.append(await shop.call("live 2"))
    assert await replays[0].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    more = [await shop.call("replay 4", replay=True), await shop.call("live 3")]
    assert [await call.code() for call in more] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2

    shop.payments.open()
    assert [await call.code() for call in (first, *live)] == [grpc.StatusCode.OK] * 3
    assert shop.payments.ran == ["first", "live 1", "live 2"]


async def test_a_call_that_a_consumer_replays_makes_room_too(shop: Shop) -> None:
    first = await running(shop, "first")
    interceptors = aio_interceptors(registry=BreakerRegistry())
    async with grpc.aio.insecure_channel(shop.target, interceptors=interceptors) as channel:
        charge: Any = channel.unary_unary(CHARGE)
        with operation("order-1", replay=True):
            replay = charge(b"replay", timeout=30)
            await until(lambda: shop.queue.waiting == 1)
        live = [await shop.call("live 1", waits=2), await shop.call("live 2")]
        assert await replay.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    shop.payments.open()
    assert [await call.code() for call in (first, *live)] == [grpc.StatusCode.OK] * 3


async def test_a_refusal_says_nothing_of_when_to_come_back(shop: Shop) -> None:
    await running(shop, "first")
    for number in (1, 2):
        await shop.call(f"live {number}", waits=number)
    refused = await shop.call("replay", replay=True)
    assert await refused.details() == "the queue is full"
    assert "grpc-retry-pushback-ms" not in dict(tuple(await refused.trailing_metadata()))


async def test_replays_run_behind_live_calls_that_came_later(shop: Shop) -> None:
    await running(shop, "first")
    replay = await shop.call("replay", replay=True, waits=1)
    live = await shop.call("live", waits=2)
    shop.payments.open()
    assert [await call.code() for call in (replay, live)] == [grpc.StatusCode.OK] * 2
    assert shop.payments.ran == ["first", "live", "replay"]


async def test_a_free_server_answers_replays_one_after_the_other(shop: Shop) -> None:
    shop.payments.open()
    for number in range(5):
        call = await shop.call(str(number), replay=True)
        assert await call.code() is grpc.StatusCode.OK
    assert shop.queue.waiting == 0


async def test_a_call_whose_caller_has_gone_is_not_worked_on_and_holds_no_place(shop: Shop) -> None:
    first = await running(shop, "first")
    gone = await shop.call("gone", waits=1)
    stays = await shop.call("stays", waits=2)
    gone.cancel()
    await shop.left()
    shop.payments.open()
    assert [await call.code() for call in (first, stays)] == [grpc.StatusCode.OK] * 2
    assert await (await shop.call("last")).code() is grpc.StatusCode.OK
    assert shop.payments.ran == ["first", "stays", "last"]


@pytest.mark.parametrize("name", KINDS)
async def test_the_program_serves_live_calls_and_replays(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with KeptProcess([sys.executable, EXAMPLES / f"{name}.py", "0"], cwd=tmp_path, log=log):

        def port() -> re.Match[str] | None:
            return re.search(r"^listening on (\d+)$", log.read_text(), re.MULTILINE)

        await until(lambda: port() is not None)
        found = port()
        assert found is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{found[1]}") as channel:
            charge: Any = channel.unary_unary(CHARGE)
            for metadata in ((), MARK):
                assert await charge(b"order-1", timeout=30, metadata=metadata) == b"order-1"


async def test_the_interceptor_of_the_page_refuses_replays_while_the_limit_is_reached() -> None:
    names = run_examples(ROOT / "docs" / "recovery.md", {})
    server = grpc.aio.server(interceptors=[names["ReplaysLast"](1)])
    payments = AioPayments()
    port = serve(server, payments)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary(CHARGE)

        def charge(reference: str, metadata: Any = ()) -> Any:
            return method(reference.encode(), timeout=30, metadata=metadata)

        live = charge("first")
        await until(lambda: payments.ran == ["first"])
        assert await charge("replay", MARK).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        second = charge("second")
        await until(lambda: payments.ran == ["first", "second"])
        payments.open()
        assert [await call.code() for call in (live, second)] == [grpc.StatusCode.OK] * 2
        assert await charge("replay", MARK).code() is grpc.StatusCode.OK
    await server.stop(0)
