"""Nothing stops in silence: what ends a worker is said, and the worker is started again."""

from __future__ import annotations

import asyncio
import logging
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.errors import BrokerUnavailableError
from fusewire.parking import ParkingConsumer, _supervision, _waiting
from fusewire.parking._deliveries import Deliveries
from fusewire.parking._dependencies import Dependencies
from fusewire.parking._receiver import Receiver
from fusewire.parking._status_watch import BrokerContact
from fusewire.parking._survived_returns import SurvivedReturns
from fusewire.parking._waiting import Backoff
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_a_worker_that_ends_by_an_error_is_started_again_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starts = 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise LookupError("a defect")

    workers = {"the consumer of 'q'": run}
    await asyncio.wait_for(_supervision.keep_all_running(workers, asyncio.Event()), 20)
    assert starts == 3
    assert caplog.messages == ["the consumer of 'q' ended by an error and is started again"] * 2
    assert all(record.exc_info for record in caplog.records)


async def test_a_worker_that_always_fails_is_no_reason_not_to_stop() -> None:
    stopping = asyncio.Event()

    async def run() -> None:
        raise LookupError("a defect")

    kept = asyncio.create_task(_supervision.keep_all_running({"it": run}, stopping))
    await asyncio.sleep(0)
    stopping.set()
    await asyncio.wait_for(kept, 20)


async def test_a_worker_that_somebody_else_cancels_before_its_first_step_runs() -> None:
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    before = asyncio.all_tasks()
    kept = asyncio.create_task(_supervision.keep_all_running({"it": run}, asyncio.Event()))

    def cancel() -> None:
        for task in asyncio.all_tasks() - before - {kept}:
            task.cancel()

    asyncio.get_running_loop().call_soon(cancel)  # behind the step that makes the worker's task
    await asyncio.wait_for(kept, 20)
    assert ran.is_set()


async def test_a_wait_for_an_event_that_somebody_else_cancels_goes_on() -> None:
    event, before = asyncio.Event(), asyncio.all_tasks()
    waiting = asyncio.create_task(_waiting.wait_any(event, seconds=30))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - before - {waiting}:
        task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    event.set()
    await asyncio.wait_for(waiting, 20)


async def test_a_defect_in_receiving_stops_neither_the_source_nor_its_lanes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ["source", "lane"]
    receive = Deliveries._receive

    async def failing(self: Deliveries) -> None:
        if broken:
            raise LookupError(broken.pop())
        await receive(self)

    monkeypatch.setattr(Deliveries, "_receive", failing)
    await bench.send("a")
    async with bench.consumer(lambda message: None):
        await until(lambda: bench.happened("handled") == ["a"])
    assert "ended by an error and is started again" in caplog.text


async def test_a_task_that_somebody_else_cancels_is_said_and_its_message_comes_again(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = False
    needs = Dependencies.of

    def cancelling(self: Dependencies, message: AbstractIncomingMessage) -> tuple[str, ...]:
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return needs(self, message)

    async def handler(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Dependencies, "of", cancelling)
    await bench.send("a", "b", "c")
    async with bench.consumer(handler, concurrency=2):
        await until(lambda: set(bench.happened("handled")) == {"a", "b", "c"})
    [said] = [each for each in caplog.records if "could not be worked on" in each.message]
    assert said.levelno == logging.ERROR
    assert said.exc_info


def task_named(name: str) -> asyncio.Task[Any]:
    [task] = [each for each in asyncio.all_tasks() if each.get_name() == name]
    return task


@pytest.mark.parametrize("times", [1, 2], ids=["once", "while it waits"])
@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_a_worker_that_somebody_else_cancels_is_started_again_and_says_so(
    bench: Bench, on_open: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.consumer(lambda message: None, on_open=on_open):
        await bench.send("a")
        await until(lambda: bench.happened("handled") == ["a"])
        for _ in range(times):
            task_named(f"the consumer of {bench.queue!r}").cancel()
            await asyncio.sleep(0)
            await until(lambda: bool(said(caplog)))
        await bench.send("b")
        await until(lambda: bench.happened("handled") == ["a", "b"])
    assert len(said(caplog)) == times
    assert all(each.levelno == logging.ERROR for each in said(caplog))


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if "was cancelled by something else" in each.message]


async def test_receiving_that_somebody_else_cancels_begins_again_and_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"long":
            begun.set()
            await go_on.wait()

    async with bench.consumer(handler):
        await bench.send("long")
        await begun.wait()
        task_named(f"receive {bench.queue}").cancel()
        await bench.send("b")
        await until(lambda: bench.happened("handled") == ["b"])
        go_on.set()  # what is in flight is not cut off
        await until(lambda: bench.happened("handled") == ["b", "long"])
    [record] = said(caplog)
    assert record.levelno == logging.ERROR


async def test_a_consumer_whose_run_is_cancelled_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = ParkingConsumer(bench.broker, queue=bench.queue, handler=lambda message: None)
    async with consumer:
        running = asyncio.create_task(consumer.run(handle_signals=False))
        await until(
            lambda: any("the consumer of" in each.get_name() for each in asyncio.all_tasks())
        )
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 20)
    assert said(caplog) == []


async def test_waits_grow_from_a_tenth_of_a_second_to_the_longest_and_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float, _: asyncio.Event) -> bool:
        slept.append(seconds)
        return False

    monkeypatch.setattr(_waiting, "sleep_unless_stopping", sleep)
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    backoff, stopping = Backoff(longest=60), asyncio.Event()
    for _ in range(12):
        await backoff.wait(stopping)
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]
    backoff.reset()
    await backoff.wait(stopping)
    assert slept[-1] == 0.1
    monkeypatch.setattr(random, "uniform", lambda least, _most: least)
    await backoff.wait(stopping)
    assert slept[-1] == 0.1  # half of 0.2: a wait is never less than that


class Flapping:
    """A broker that delivers, and takes the delivery back before it can be settled."""

    def __init__(self) -> None:
        self.subscriptions = 0

    async def subscribe(self, station: str, *, prefetch: int) -> Flapping:
        self.subscriptions += 1
        self.given = False
        return self

    async def receive(self) -> Any:
        if self.given:
            raise BrokerUnavailableError("the connection was lost")
        self.given = True

        class Lost:
            lost = True
            message = Message(body=b"")
            returned = 0

        return Lost()

    async def release(self) -> None: ...


async def test_a_delivery_alone_does_not_reset_the_back_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def note(self: Backoff, stopping: asyncio.Event) -> bool:
        waits.append(self._next)
        self._next = min(self._next * 2, self._longest)
        if len(waits) == 8:
            stopping.set()
        await asyncio.sleep(0)
        return stopping.is_set()

    monkeypatch.setattr(Backoff, "wait", note)

    async def nothing(*_: object) -> None: ...

    stopping = asyncio.Event()
    settler = SimpleNamespace(is_settling=lambda _delivery: False)
    context: Any = SimpleNamespace(
        broker=Flapping(),
        settler=settler,
        contact=BrokerContact("q"),
        survived=SurvivedReturns(),
        stopping=stopping,
        shutdown_timeout=0,
    )
    source = Receiver(context, "q", prefetch=1, work=nothing, hand_back=nothing)
    await asyncio.wait_for(source.run(), 20)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
