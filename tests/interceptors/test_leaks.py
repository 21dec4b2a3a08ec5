"""Many calls of every way, abandoned ones too, leave nothing behind that grpcio alone would not.

What is counted are the objects that Python's collector knows, in the long tests the bytes of all
objects too. What grpcio leaves by itself is counted on a channel without guard, and allowed. A call
that is still in flight, on a busy machine, is no leak: the figures are read until they are low
enough, or for so long that they never will be.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import EchoServer, ask
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

ORDER = ask(messages=2, patience=False)
GUARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fallback": {"fallbacks": {"*": b"m"}},
    "first_message": {"streams": "first_message"},
}
WARM_UP = 50  # calls: what is made once is made
PATIENCE = 20.0  # seconds for calls in flight to end
PACE = 25  # after so many abandoned calls one is read to its end, so that they do not pile up


@dataclass(frozen=True)
class Amount:
    """How much there is: objects of Python's collector, and bytes where they are traced."""

    objects: float
    memory: float

    @classmethod
    def now(cls) -> Amount:
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
        return cls(len(gc.get_objects()), memory)

    def since(self, before: Amount, calls: int) -> Amount:
        """Return what has come by call."""
        return Amount(
            (self.objects - before.objects) / calls, (self.memory - before.memory) / calls
        )

    def __add__(self, other: Amount) -> Amount:
        return Amount(max(self.objects, 0) + other.objects, max(self.memory, 0) + other.memory)

    def __le__(self, other: Amount) -> bool:
        return self.objects <= other.objects and self.memory <= other.memory


NOTHING = Amount(objects=0.5, memory=24)  # by call: one object that is left behind is more
OF_A_KEPT_CALL = {
    "plain": Amount(objects=12, memory=1200),
    "fallback": Amount(objects=20, memory=2300),
    "first_message": Amount(objects=18, memory=2200),
}
"""What we hold of a call that grpcio holds, by guard: with the context that it was made in."""


Case = tuple[Way, str]
"""A way of calling, and what becomes of the call."""


def is_kept(case: Case) -> bool:
    """Return whether grpcio keeps such a call of an asyncio channel until the channel is closed.

    Since 1.83 it never collects a stream that has not been read to its end
    (https://github.com/grpc/grpc/issues/43462).
    """
    way, end = case
    return way.asynchronous and way.streams and end != "read"


def cases(ways: list[Way]) -> list[Case]:
    found = []
    for way in ways:
        if way.style != "with_call":  # as `call`
            found.append((way, "read"))
        if not way.blocks:
            found.append((way, "unread"))
        if way.streams:
            found.append((way, "half read"))
    return found


def runs(ways: list[Way]) -> Iterator[Any]:
    """Provide the tests' arguments: many calls of one case, or some of each that is alike."""
    every = cases(ways)
    for kind in GUARDS:
        for kept in (False, True):
            if alike := tuple(case for case in every if is_kept(case) is kept):
                yield pytest.param(alike, kind, 50, id=f"{'kept' if kept else 'all'}-{kind}")
        for way, end in every:
            if kind != "first_message" or way.streams:
                yield pytest.param(
                    ((way, end),),
                    kind,
                    10_000,
                    id=f"{way}-{end}-{kind}",
                    marks=[pytest.mark.long, pytest.mark.timeout(600)],
                )


@pytest.fixture(scope="module")
def alone() -> dict[Any, Amount]:
    """Keep what grpcio alone leaves behind: it is the same for all guards."""
    return {}


@pytest.fixture
def breakers(calls: int) -> Iterator[BreakerRegistry]:
    if calls > WARM_UP:  # tracing makes calls slow
        tracemalloc.start()
    yield BreakerRegistry(BreakerSettings())
    tracemalloc.stop()


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """Keep the loop from telling of what grpcio leaves unfinished of calls that are dropped."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    yield
    loop.set_exception_handler(None)


def ours() -> int:
    """Count the objects of our own classes that are alive."""
    gc.collect()
    modules = [getattr(type(one), "__module__", "") for one in gc.get_objects()]
    return sum(isinstance(module, str) and module.startswith("fusewire.") for module in modules)


def python_tasks() -> list[asyncio.Task[Any]]:
    """List the tasks that run Python's coroutines.

    Those in Cython are grpcio's: one waits forever for the status of a call that was dropped
    before it began, with and without us.
    """
    return [task for task in asyncio.all_tasks() if inspect.iscoroutine(task.get_coro())]


def settled(breakers: BreakerRegistry) -> int:
    """Count the permits that have been settled."""
    return sum(
        counters.succeeded + counters.ignored + counters.failed + counters.late
        for counters in (breaker.snapshot().counters for breaker in breakers)
    )


async def growth(
    make: Callable[[int], Awaitable[int]], calls: int, allowed: Amount | None
) -> Amount:
    """Make calls and return what is left of each: once that is `allowed`, or will not go."""
    await make(WARM_UP)
    before = await _at_rest()
    made = await make(calls)
    left = (await _at_rest()).since(before, made)
    limit = time.monotonic() + PATIENCE
    while allowed is not None and not left <= allowed and time.monotonic() < limit:
        left = (await _at_rest()).since(before, made)
    return left


async def _at_rest() -> Amount:
    """Wait until no more objects go."""
    seen = Amount.now()
    for _ in range(200):
        await asyncio.sleep(0.02)
        seen, last = Amount.now(), seen
        if seen.objects >= last.objects:
            break
    return seen


async def nothing_is_left(
    breakers: BreakerRegistry, *, calls: int, objects: int, threads: int, tasks: int
) -> None:
    """Wait until all that came with the calls has gone, for a limited time."""
    await until(lambda: settled(breakers) == calls, "every permit")
    await until(lambda: ours() <= objects, "our objects' end")
    await until(lambda: threading.active_count() <= threads, "the threads' end")
    await until(lambda: len(python_tasks()) <= tasks, "the tasks' end")


def maker_sync(cases: tuple[Case, ...], channel: Any) -> Callable[[int], Awaitable[int]]:
    """Provide a function that makes so many calls of each case on a sync channel."""

    async def make(calls: int) -> int:
        for way, end in cases:
            for number in range(calls):
                if end == "read" or not number % PACE:
                    finish(way, channel, ORDER)
                    continue
                call = way.make(channel, ORDER)
                if end == "half read":
                    next(call)
                del call
        return calls * len(cases)

    return make


def maker_asyncio(cases: tuple[Case, ...], channel: Any) -> Callable[[int], Awaitable[int]]:
    """Provide a function that makes so many calls of each case on an asyncio channel."""

    async def make(calls: int) -> int:
        for way, end in cases:
            for number in range(calls):
                if end == "read" or not number % PACE:
                    await aio_finish(way, channel, ORDER)
                    continue
                call = way.make(channel, ORDER)
                if way.style == "write":
                    await call.write(ORDER)
                if end == "half read":
                    await call.read()
                await asyncio.sleep(0)  # let it begin
                del call
        return calls * len(cases)

    return make


@pytest.mark.parametrize(("cases", "kind", "calls"), list(runs(SYNC_WAYS)))
async def test_sync_calls_leave_nothing_behind(  # noqa: PLR0917 - fixtures
    cases: tuple[Case, ...],
    kind: str,
    calls: int,
    server: EchoServer,
    breakers: BreakerRegistry,
    alone: dict[Any, Amount],
) -> None:
    if cases not in alone:
        with grpc.insecure_channel(server.target) as channel:
            alone[cases] = await growth(maker_sync(cases, channel), calls, None)
    allowed = alone[cases] + NOTHING
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=breakers, **GUARDS[kind]) as guarded:
        make = maker_sync(cases, guarded)
        first = await make(1)
        threads, tasks, objects = threading.active_count(), len(python_tasks()), ours()
        assert await growth(make, calls, allowed) <= allowed
        made = first * (1 + WARM_UP + calls)
        await nothing_is_left(breakers, calls=made, objects=objects, threads=threads, tasks=tasks)


@pytest.mark.parametrize(("cases", "kind", "calls"), list(runs(AIO_WAYS)))
async def test_asyncio_calls_leave_nothing_behind(  # noqa: PLR0917 - fixtures
    cases: tuple[Case, ...],
    kind: str,
    calls: int,
    server: EchoServer,
    breakers: BreakerRegistry,
    alone: dict[Any, Amount],
    quiet_loop: None,
) -> None:
    if is_kept(cases[0]) and grpc.__version__.startswith("1.71."):
        pytest.skip("grpcio 1.71 keeps such calls for good, with any interceptor")
    if cases not in alone:
        async with grpc.aio.insecure_channel(server.target, interceptors=aio_no_op()) as channel:
            alone[cases] = await growth(maker_asyncio(cases, channel), calls, None)
    allowed = alone[cases] + (OF_A_KEPT_CALL[kind] if is_kept(cases[0]) else NOTHING)
    guards = aio_interceptors(registry=breakers, **GUARDS[kind])
    tasks = len(python_tasks())
    async with grpc.aio.insecure_channel(server.target, interceptors=guards) as channel:
        make = maker_asyncio(cases, channel)
        first = await make(1)
        threads, objects = threading.active_count(), ours()
        assert await growth(make, calls, allowed) <= allowed
    made = first * (1 + WARM_UP + calls)
    await nothing_is_left(breakers, calls=made, objects=objects, threads=threads, tasks=tasks)
