"""Whatever a handler says of its message counts; what cannot have run is not acknowledged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from typing import TYPE_CHECKING, Any

import anyio.from_thread
import grpc
import pytest

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


SAYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "ack": (lambda message: message.ack(), "handled"),
    "reject": (lambda message: message.reject(), "dead"),
    "nack without requeue": (lambda message: message.nack(requeue=False), "dead"),
    "reject with requeue": (lambda message: message.reject(requeue=True), "delayed"),
    "nack": (lambda message: message.nack(), "delayed"),
}


@pytest.mark.parametrize(("say", "becomes"), SAYS.values(), ids=SAYS)
async def test_what_a_plain_function_says_of_its_message_counts(
    bench: Bench, say: Callable[[Any], Any], becomes: str
) -> None:
    def handler(message: AbstractIncomingMessage) -> None:
        say(message)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: "a" in bench.happened(becomes))
        await until(lambda: bench.events)
    assert becomes == "delayed" or bench.happened(becomes) == [
        event.operation_id for event in bench.events
    ]


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("say", "becomes"), SAYS.values(), ids=SAYS)
async def test_what_a_coroutine_says_counts_without_an_await(
    bench: Bench, say: Callable[[Any], Any], becomes: str
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        say(message)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: "a" in bench.happened(becomes))


IN_PLAIN_FUNCTIONS: dict[str, Callable[[AbstractIncomingMessage], Any]] = {
    "returned": lambda message: message.reject(),
    "anyio.from_thread": lambda message: anyio.from_thread.run(message.reject),
    "asyncio.run": lambda message: asyncio.run(message.reject()),
}


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
@pytest.mark.parametrize("handler", IN_PLAIN_FUNCTIONS.values(), ids=IN_PLAIN_FUNCTIONS)
async def test_a_plain_function_may_run_it_as_a_coroutine_too(
    bench: Bench, handler: Callable[[Any], Any]
) -> None:
    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_task_of_it_is_a_task(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(message.reject())

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])


async def test_a_message_is_not_locked_until_the_handler_has_settled_it(bench: Bench) -> None:
    locked: list[bool] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        locked.append(message.locked)
        await message.ack()
        locked.append(message.locked)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert locked == [False, True]


class Framework:
    """Settles messages around its users' functions, as FastStream does by default."""

    def __init__(self, function: Callable[[AbstractIncomingMessage], Awaitable[None]]) -> None:
        self.function = function

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        try:
            await self.function(message)
        except Exception:
            if not message.locked:
                await message.reject(requeue=False)
            raise
        if not message.locked:
            await message.ack()


async def test_a_framework_that_asks_for_the_lock_can_reject(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def function(message: AbstractIncomingMessage) -> None:
        if message.body == b"bad":
            raise ValueError("cannot be read")
        if message.body == b"own":
            await message.nack(requeue=False)

    await bench.send("bad", "good", "own")
    async with bench.consumer(Framework(function), max_attempts=2):
        await until(lambda: len(bench.events) == 3)
    assert sorted(bench.happened("dead")) == ["bad", "own"]
    assert bench.happened("handled") == ["good"]
    for dead in await bench.dead():
        if dead.body == b"bad":
            assert "cannot be read" in str(dead.headers["fusewire-stack"])
    assert "after it had settled" not in caplog.text


class Ended(grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A call of grpcio's that ends on a thread of its own."""

    def __init__(self, go_on: threading.Event, error: Exception | None) -> None:
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._go_on = go_on
        self._error = error
        threading.Thread(target=self._end).start()

    def _end(self) -> None:
        self._go_on.wait(10)
        if self._error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(self._error)

    def cancel(self) -> bool:
        return self._future.cancel()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def running(self) -> bool:
        return self._future.running()

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> None:
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> Exception | None:
        error = self._future.exception(timeout)
        assert error is None or isinstance(error, Exception)
        return error

    def traceback(self, timeout: float | None = None) -> Any:
        return None

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self._future.add_done_callback(lambda _: fn(self))


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["concurrent", "grpc", "task", "coroutine", "from a coroutine"])
async def test_a_result_that_has_not_come_yet_is_waited_for(
    bench: Bench, pool: concurrent.futures.ThreadPoolExecutor, kind: str, *, fails: bool
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        if fails:
            raise ValueError("late")

    async def work_on_the_loop() -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        if fails:
            raise ValueError("late")

    def futures(message: AbstractIncomingMessage) -> object:
        if kind == "grpc":
            begun.set()
            return Ended(go_on, ValueError("late") if fails else None)
        return pool.submit(work) if kind == "concurrent" else work_on_the_loop()

    async def awaitables(message: AbstractIncomingMessage) -> object:
        if kind == "task":
            return asyncio.create_task(work_on_the_loop())
        return futures(message) if kind == "coroutine" else pool.submit(work)

    handler = futures if kind in ("concurrent", "grpc") else awaitables
    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(begun.is_set)
        await asyncio.sleep(0.02)
        assert not bench.events, "settled before it has ended"
        go_on.set()
        await until(lambda: bench.happened("dead" if fails else "handled") == ["a"])


def _lazily(message: object) -> Iterator[object]:
    yield message


async def _lazily_on_the_loop(message: object) -> AsyncIterator[object]:
    yield message


def _wrapped(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Hide what `function` is, as many decorators do."""
    return lambda message: function(message)  # noqa: PLW0108


async def _a_coroutine_that_returns_one(message: object) -> object:
    return _lazily(message)


NOT_RUN: dict[str, Callable[[Any], Any]] = {
    "generator": _wrapped(_lazily),
    "async generator": _wrapped(_lazily_on_the_loop),
    "from a coroutine": _a_coroutine_that_returns_one,
    "function": lambda message: lambda: message,
    "partial": lambda message: functools.partial(print, message),
}


@pytest.mark.parametrize("handler", NOT_RUN.values(), ids=NOT_RUN)
async def test_what_only_shows_at_run_time_not_to_have_run_is_not_acknowledged(
    bench: Bench, handler: Callable[[Any], Any]
) -> None:
    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-exception"] == "fusewire.parking.HandlerNotRunError"
