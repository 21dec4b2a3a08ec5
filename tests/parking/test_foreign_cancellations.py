"""Whatever task something else cancels, at whatever moment: the queues of a consumer are served.

A framework may cancel all tasks of an event loop, or those that it takes for its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.errors import BrokerError
from fusewire.parking._history import History
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


class Traffic:
    """Messages for the source queue and for a lane, and which of them were handled."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._sent: set[str] = set()
        self._handled: set[str] = set()

    async def handle(self, message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0.01)
        self._handled.add(message.body.decode())

    async def send(self) -> None:
        """Send one to the queue and one to its lane."""
        body = f"m{len(self._sent)}"
        await self._publish(self._bench.queue, Message(body=body.encode(), message_id=body))
        body = f"m{len(self._sent)}"
        history = History(operation_id=body, queue=self._bench.queue, times_parked=1)
        parked = history.to_headers(Message(body=body.encode(), message_id=body))
        await self._publish(f"{self._bench.queue}.parked.other", parked)

    async def _publish(self, queue: str, message: Message) -> None:
        while True:  # over a connection whose tasks may have been cancelled too
            with contextlib.suppress(BrokerError):
                await self._bench.broker.publish(queue, message)
                break
        self._sent.add(message.body.decode())

    async def all_handled(self, after: str) -> None:
        await until(lambda: self._handled >= self._sent, f"all handled after {after}", limit=40)


def kind(task: asyncio.Task[Any]) -> str:
    """Name the coroutine function of a task."""
    return str(getattr(task.get_coro(), "__qualname__", task.get_name()))


def strangers_prey(spared: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return the tasks that something else may cancel: all but run(), which a caller may end."""
    return [
        task
        for task in asyncio.all_tasks() - spared
        if kind(task) != "ParkingConsumer.run" and not task.done()
    ]


@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_each_task_of_a_consumer_may_be_cancelled_by_something_else(
    bench: Bench, on_open: str
) -> None:
    spared, traffic, cancelled = asyncio.all_tasks(), Traffic(bench), set[str]()
    async with bench.consumer(traffic.handle, on_open=on_open, concurrency=2):
        await traffic.send()
        await traffic.all_handled("the start")
        while left := [task for task in strangers_prey(spared) if kind(task) not in cancelled]:
            cancelled.add(kind(left[0]))
            left[0].cancel()
            await traffic.send()
            await traffic.all_handled(kind(left[0]))
    assert len(cancelled) > 5


@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_all_tasks_of_a_consumer_may_be_cancelled_by_something_else(
    bench: Bench, on_open: str
) -> None:
    spared, traffic = asyncio.all_tasks(), Traffic(bench)
    async with bench.consumer(traffic.handle, on_open=on_open, concurrency=2):
        for steps in (0, 1, 2, 5, 20, 100):
            await traffic.send()
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in strangers_prey(spared):
                task.cancel()
            await traffic.send()
            await traffic.all_handled(f"all, {steps} steps after a message was sent")


async def test_what_runs_beside_a_replay_runs_again_after_something_else_cancelled_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    spared, traffic = asyncio.all_tasks(), Traffic(bench)

    def beside() -> dict[str, asyncio.Task[Any]]:
        tasks = {kind(task): task for task in strangers_prey(spared)}
        return {name: task for name, task in tasks.items() if name.startswith("Participation.")}

    async with bench.consumer(traffic.handle, concurrency=2):
        await until(lambda: len(beside()) == 2)
        for name, task in beside().items():
            task.cancel()
            await asyncio.wait([task])
            await until(lambda name=name: name in beside(), f"{name} runs again")
        await traffic.send()
        await traffic.all_handled("the cancellations")
    assert caplog.text.count("was cancelled by something else and is started again") == 2
