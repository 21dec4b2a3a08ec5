"""What was done and could not be acknowledged is not done again by the same process."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message
from fusewire.parking._history import History
from fusewire.parking._unacknowledged import Unacknowledged
from fusewire.testing import FakeClock
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

MESSAGE = Message(body=b"a", message_id="a")
RECORD = History(operation_id="a")


def test_it_serves_once() -> None:
    memory = Unacknowledged()
    memory.keep(MESSAGE, RECORD, done=True)
    ended = memory.recall(MESSAGE)
    assert ended is not None
    assert ended.done
    assert memory.recall(MESSAGE) is None


@pytest.mark.parametrize(
    "changed",
    [{"body": b"b"}, {"headers": {"x": 1}}, {"message_id": "b"}, {"routing_key": "elsewhere"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_message_that_differs_in_anything_is_another(changed: dict[str, object]) -> None:
    memory = Unacknowledged()
    memory.keep(MESSAGE, RECORD, done=True)
    assert memory.recall(dataclasses.replace(MESSAGE, **changed)) is None  # type: ignore[arg-type]


def test_it_is_bounded_in_number_and_time() -> None:
    clock = FakeClock()
    memory = Unacknowledged(clock)
    for number in range(3000):
        memory.keep(Message(body=b"%d" % number), RECORD, done=True)
    assert memory.recall(Message(body=b"0")) is None
    assert memory.recall(Message(body=b"2999")) is not None
    clock.advance(3601)
    assert memory.recall(Message(body=b"2998")) is None


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("headers", [{}, {"fusewire-at-most-once": True}])
async def test_a_handler_slower_than_the_connection_is_called_once(
    bench: Bench, headers: dict[str, bool]
) -> None:
    calls: list[str] = []
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(message.body.decode())
        if message.body == b"slow":
            await go_on.wait()

    await bench.send("slow", headers=headers)
    await bench.send("fast")
    async with bench.consumer(handler, concurrency=1):
        await until(lambda: calls == ["slow"])
        await bench.drop_connection()
        go_on.set()
        await until(lambda: set(bench.happened("handled")) == {"slow", "fast"})
    assert calls == ["slow", "fast"]
    assert bench.happened("dead") == []


async def test_an_equal_message_that_is_not_redelivered_is_another_and_is_handled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Message] = []
    begin = Unacknowledged.begin

    def noted(self: Unacknowledged, attempt: object, message: Message) -> None:
        seen.append(message)
        begin(self, attempt, message)

    monkeypatch.setattr(Unacknowledged, "begin", noted)
    async with bench.consumer(lambda _message: None) as consumer:
        await bench.send("a")
        await until(lambda: len(bench.happened("handled")) == 1)
        # Its redelivery went to another process.
        consumer._parts.unacknowledged.keep(seen[0], RECORD, done=True)
        await bench.send("a")
        await until(lambda: len(bench.happened("handled")) == 2)
        assert seen == [seen[0]] * 2  # so it was handled twice
        assert consumer._parts.unacknowledged.recall(seen[0]) is not None


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_a_handler_is_never_run_beside_itself(bench: Bench) -> None:
    running = most = calls = 0
    go_on = threading.Event()

    def handler(message: AbstractIncomingMessage) -> None:
        nonlocal running, most, calls
        calls += 1
        running += 1
        most = max(most, running)
        go_on.wait(30)
        running -= 1
        if calls == 1:
            raise ValueError("the first attempt fails, and nobody can be told")

    await bench.send("a")
    async with bench.consumer(handler, concurrency=3):
        for _ in range(2):
            await until(lambda: running == 1)
            await bench.drop_connection()
            await until(lambda: bench.broker._consuming._connection is not None)  # type: ignore[attr-defined]

        async def in_hand() -> bool:
            return await bench.broker.depth(bench.queue) == 0

        await until(in_hand)  # again, and beside the one that runs
        go_on.set()
        await until(lambda: bench.happened("handled") == ["a"])
    assert (most, calls) == (1, 2)


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_equal_messages_without_an_identity_are_each_handled(bench: Bench) -> None:
    calls = 0
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        await go_on.wait()

    for _ in range(2):
        await bench.send("tick", message_id=None)
    async with bench.consumer(handler, concurrency=1):
        await until(lambda: calls == 1)
        await bench.drop_connection()
        go_on.set()
        await until(lambda: len(bench.happened("handled")) == 2)
    assert calls == 3  # the first one twice, or one of them would have been lost
