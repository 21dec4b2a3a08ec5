"""What ends a handler from outside: its libraries' cancellations, exits, Ctrl-C, a shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import grpc.aio
import pytest

from fusewire.parking import ParkingConsumer
from fusewire.parking import _deliveries as deliveries_module
from fusewire.parking import _receiver as receiver_module
from fusewire.parking._errors import Requeue
from tests.support.dependency import Dependency
from tests.support.messages import until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def _old_timeout(seconds: float) -> None:
    """Time out as async-timeout before 4.0.3 and asgiref do: cancel, swallow, no uncancel()."""
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    timer.cancel()


async def _swallowed(_: AbstractIncomingMessage) -> None:
    await _old_timeout(0)


async def _cancelled_by_itself(_: AbstractIncomingMessage) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _cancelled_after_its_end(_: AbstractIncomingMessage) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    asyncio.get_running_loop().call_later(0.001, task.cancel)


async def _within_a_scope(_: AbstractIncomingMessage) -> None:
    with anyio.move_on_after(0.001):
        await asyncio.Event().wait()


LEFT_OVER = [_swallowed, _cancelled_by_itself, _cancelled_after_its_end, _within_a_scope]


@pytest.mark.parametrize("on_open", ["park", "pause"])
@pytest.mark.parametrize("handler", LEFT_OVER, ids=[way.__name__.strip("_") for way in LEFT_OVER])
async def test_a_cancellation_that_a_library_leaves_over_is_no_shutdown(
    bench: Bench, handler: Callable[[Any], Any], on_open: str
) -> None:
    bodies = [f"m{number}" for number in range(6)]
    await bench.send(*bodies)
    async with bench.consumer(handler, concurrency=2, on_open=on_open):
        await until(lambda: len(bench.events) == 6)
    assert sorted(bench.happened("handled")) == bodies
    await until_depth(bench.broker, bench.queue, 0)


async def test_it_is_no_shutdown_in_a_replay_either(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        await dependency(message)
        await _old_timeout(0)

    await bench.send("a", "b", "c")
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 3)
        dependency.recover()
        await until(lambda: len(bench.happened("replayed")) == 3)


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_cancellation_that_nobody_asked_the_handler_for_is_a_failed_attempt(
    bench: Bench,
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            method: Any = channel.unary_unary("/a/b")
            call = method(b"", wait_for_ready=True)
            asyncio.get_running_loop().call_soon(call.cancel)
            await call

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])


def _exits(_: AbstractIncomingMessage) -> None:
    sys.exit("no such account")


async def _exits_on_the_loop(_: AbstractIncomingMessage) -> None:
    await asyncio.sleep(0)
    sys.exit("no such account")


def _interrupts(_: AbstractIncomingMessage) -> None:
    raise KeyboardInterrupt


EXITS = [_exits, _exits_on_the_loop, _interrupts]


@pytest.mark.parametrize("handler", EXITS, ids=[way.__name__.strip("_") for way in EXITS])
async def test_an_exit_is_a_failed_attempt(bench: Bench, handler: Callable[[Any], Any]) -> None:
    calls: list[bytes] = []
    is_async = asyncio.iscoroutinefunction(handler)

    def plain(message: AbstractIncomingMessage) -> None:
        calls.append(message.body)
        if message.body == b"bad":
            handler(message)

    async def coroutine(message: AbstractIncomingMessage) -> None:
        calls.append(message.body)
        if message.body == b"bad":
            await handler(message)

    await bench.send("bad", "good")
    options = {"concurrency": 1, "max_attempts": 2}
    async with bench.consumer(coroutine if is_async else plain, **options):
        await until(lambda: len(bench.happened("dead") + bench.happened("handled")) == 2)
    assert bench.happened("dead") == ["bad"]
    assert sorted(calls) == [b"bad", b"bad", b"good"]


class _OutOfMoneyError(BaseException):
    """What a library raises past every ``except Exception``, as gevent and pytest do."""


NO_EXCEPTIONS = [SystemExit, asyncio.CancelledError, _OutOfMoneyError]


@pytest.mark.parametrize("on_open", ["park", "pause"])
@pytest.mark.parametrize("raised", NO_EXCEPTIONS)
@pytest.mark.parametrize("where", ["depends_on", "operation_id", "dead_on"])
@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_an_exit_in_a_function_beside_the_handler_ends_nothing(
    bench: Bench,
    where: str,
    raised: type[BaseException],
    on_open: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(message: AbstractIncomingMessage) -> None:
        if where == "dead_on":
            raise ValueError("to be judged")

    def asked(_: object) -> Any:
        raise raised("no such account")

    await bench.send("a", "b")
    async with bench.consumer(handler, max_attempts=1, on_open=on_open, **{where: asked}):
        await until(lambda: len(bench.happened("dead")) == 2)
    assert "goes back" not in caplog.text
    assert f"{raised.__name__}('no such account')" in caplog.text


@pytest.mark.parametrize("raised", NO_EXCEPTIONS)
@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_an_exit_in_a_listener_ends_nothing(
    bench: Bench, raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def listener(_: object) -> None:
        raise raised("no such account")

    await bench.send("a", "b")
    async with bench.consumer(lambda message: None) as consumer:
        consumer.add_listener(listener)
        await until(lambda: len(bench.happened("handled")) == 2)
    assert "goes back" not in caplog.text


async def test_ctrl_c_in_a_coroutine_ends_the_consumer_and_its_message_goes_back(
    bench: Bench,
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        raise KeyboardInterrupt

    await bench.send("a")
    consumer = ParkingConsumer(bench.broker, queue=bench.queue, handler=handler)
    consumer.add_listener(bench.events.append)

    async def run() -> BaseException | None:
        try:  # a task that ends by it ends the test run, too
            await consumer.run()
        except KeyboardInterrupt as error:
            return error
        return None

    async with consumer:
        assert isinstance(await asyncio.wait_for(run(), 30), KeyboardInterrupt)
        await until_depth(bench.broker, bench.queue, 1)
    assert bench.events == []


async def test_a_plain_function_that_outlasts_the_shutdown_counts_if_it_ends_soon_after(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handler(_: AbstractIncomingMessage) -> None:
        begun.set()
        go_on.wait(30)

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0.05) as consumer:
        await until(begun.is_set)
        consumer.stop()
        await until(lambda: "did not end within" in caplog.text)
        await asyncio.sleep(0)
        go_on.set()
        await until(lambda: bench.happened("handled") == ["a"])
    await until_depth(bench.broker, bench.queue, 0)


@pytest.mark.parametrize("kind", ["plain", "future"])
async def test_what_cannot_be_stopped_is_never_called_again_beside_itself(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiver_module, "_RECYCLE_GRACE", 0.05)
    monkeypatch.setattr(deliveries_module, "_HEED", 0.05)
    go_on = threading.Event()
    calls: list[str] = []

    def work(message: AbstractIncomingMessage) -> None:
        calls.append(message.body.decode())
        if message.body == b"slow":
            go_on.wait(30)
        elif calls.count("back") == 1:
            raise Requeue("all that is in flight goes back")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:

        def handler(message: AbstractIncomingMessage) -> object:
            return work(message) if kind == "plain" else pool.submit(work, message)

        await bench.send("slow")
        async with bench.consumer(handler, shutdown_timeout=0.05):
            await until(lambda: "slow" in calls)
            await bench.send("back")
            await until(lambda: bench.happened("handled") == ["back"])
            await until(lambda: "did not end within" in caplog.text)
            assert calls.count("slow") == 1
            go_on.set()
            await until(lambda: "slow" in bench.happened("handled"))
    assert calls.count("slow") == 1
    await until_depth(bench.broker, bench.queue, 0)


async def test_a_plain_function_whose_task_something_else_cancels_is_not_called_beside_itself(
    bench: Bench,
) -> None:
    go_on = threading.Event()
    calls: list[str] = []

    def handler(message: AbstractIncomingMessage) -> None:
        calls.append(message.body.decode())
        go_on.wait(30)

    before = asyncio.all_tasks()
    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bool(calls))
        for task in asyncio.all_tasks() - before:
            if "run_sync" in repr(task.get_coro()):
                task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await until(lambda: bench.happened("handled") == ["a"])
    assert calls == ["a"]
