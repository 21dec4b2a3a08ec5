"""A handler that takes longer than its time limit has failed; one that is slow is warned of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitState
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


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
