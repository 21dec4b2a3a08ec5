"""What ends a handler from outside: its libraries' cancellations, exits, Ctrl-C, a time limit."""

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

from fusewire.breaker import CircuitState
from fusewire.parking import ParkingConsumer
from fusewire.parking import _receiver as receiver_module
from fusewire.parking._errors import Requeue
from tests.support.dependency import Dependency
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
    assert await bench.broker.depth(bench.queue) == 0


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


@pytest.mark.parametrize("where", ["depends_on", "operation_id", "dead_on"])
@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_an_exit_in_a_function_beside_the_handler_ends_nothing(
    bench: Bench, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(message: AbstractIncomingMessage) -> None:
        if where == "dead_on":
            raise ValueError("to be judged")

    def asked(_: object) -> Any:
        sys.exit("no such account")

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1, **{where: asked}):
        await until(lambda: len(bench.happened("dead")) == 1)
    assert "goes back" not in caplog.text


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_an_exit_in_a_listener_ends_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(_: object) -> None:
        sys.exit("no such account")

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
        await until(lambda: _depth(bench, 1))
    assert bench.events == []


async def _depth(bench: Bench, wanted: int) -> bool:
    return await bench.broker.depth(bench.queue) == wanted


@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_a_coroutine_that_takes_too_long_is_cancelled_and_has_failed(
    bench: Bench, on_open: str
) -> None:
    ended: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"slow":
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("slow")

    await bench.send("slow", "fast")
    options = {"concurrency": 1, "max_attempts": 2, "handler_timeout": 0.05, "on_open": on_open}
    async with bench.consumer(handler, **options):
        await until(lambda: len(bench.happened("dead") + bench.happened("handled")) == 2)
    assert bench.happened("dead") == ["slow"]
    assert ended == ["slow", "slow"]
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-exception"] == "fusewire.parking.HandlerTimeoutError"
    assert "within 0.05 s (handler_timeout)" in str(dead.headers["fusewire-exception-message"])
    assert "Event().wait()" in str(dead.headers["fusewire-stack"]), "it does not say where"


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_one_that_keeps_its_cancellation_to_itself_has_failed_too(bench: Bench) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1, handler_timeout=0.05):
        await until(lambda: bench.happened("dead") == ["a"])


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_coroutine_that_ends_in_time_feels_nothing_of_it(bench: Bench) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0)

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, handler_timeout=30):
        await until(lambda: len(bench.happened("handled")) == 3)


async def test_an_at_most_once_message_that_takes_too_long_is_ambiguous(bench: Bench) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        await asyncio.Event().wait()

    await bench.send("a", headers={"fusewire-at-most-once": True})
    async with bench.consumer(handler, handler_timeout=0.05):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"


async def test_one_that_waits_out_an_open_circuit_by_itself_is_parked_at_the_end_of_its_time(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        while True:
            try:
                return await dependency(message)
            except Exception:  # noqa: BLE001
                await asyncio.sleep(0.01)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1, handler_timeout=0.1):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_circuit_around_handlers_opens_when_they_take_too_long(bench: Bench) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        await asyncio.Event().wait()

    await bench.send("a", "b", "c")
    options = {"guard_with": "payments", "handler_timeout": 0.05, "concurrency": 1}
    async with bench.consumer(handler, **options):
        await until(lambda: bench.registry.get("payments").state is not CircuitState.CLOSED)


async def test_a_plain_function_that_takes_too_long_is_reported_and_waited_for(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    began: list[bytes] = []

    def handler(message: AbstractIncomingMessage) -> None:
        began.append(message.body)
        if message.body == b"slow":
            go_on.wait(30)

    await bench.send("slow", "behind")
    async with bench.consumer(handler, concurrency=1, handler_timeout=0.5):
        await until(lambda: "cannot be stopped" in caplog.text)
        assert began == [b"slow"], "its place was given away"
        assert not bench.events
        go_on.set()
        await until(lambda: len(bench.happened("handled")) == 2)
    assert began == [b"slow", b"behind"]
    (report,) = [each for each in caplog.records if "cannot be stopped" in each.message]
    assert "within 0.5 s" in report.message
    assert "go_on.wait(30)" in report.message, "it does not say where the function is"


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
    assert await _depth(bench, 0)


@pytest.mark.parametrize("kind", ["plain", "future"])
async def test_what_cannot_be_stopped_is_never_called_again_beside_itself(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiver_module, "_RECYCLE_GRACE", 0.05)
    monkeypatch.setattr(receiver_module, "_HEED", 0.05)
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
    assert await _depth(bench, 0)


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_future_that_takes_too_long_is_cancelled_if_it_has_not_begun(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def handler(_: AbstractIncomingMessage) -> object:
            return pool.submit(go_on.wait, 30)

        await bench.send("begun", "waits")
        options = {"max_attempts": 1, "handler_timeout": 0.5}
        async with bench.consumer(handler, **options):
            await until(lambda: len(bench.happened("dead")) == 1)
            await until(lambda: "cannot be stopped" in caplog.text)
            go_on.set()
            await until(lambda: len(bench.happened("handled")) == 1)


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_slow_handler_is_warned_of_at_half_the_time_it_may_hold_its_message(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def slow(_: AbstractIncomingMessage) -> None:
        await go_on.wait()

    monkeypatch.setattr("fusewire.parking._consumer._HOLD_LIMIT", 0.1)
    await bench.send("a")
    async with bench.consumer(slow):
        await until(lambda: "has worked on a message for 0.05 s" in caplog.text)
        go_on.set()
        await until(lambda: bench.happened("handled") == ["a"])
    (warning,) = [each for each in caplog.records if "has worked on" in each.message]
    assert "<locals>.slow" in warning.message
    assert "0.1 s" in warning.message
