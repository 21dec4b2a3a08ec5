"""Acknowledgements that go together: what is written, and who is informed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.brokers.rabbitmq._acknowledging import Acknowledger, Tags
from tests.support.waiting import until


class Broker:
    """A channel's unacknowledged deliveries, as RabbitMQ keeps them, and the frames it was sent."""

    is_closed = False

    def __init__(self, deliveries: int) -> None:
        self.left = list(range(1, deliveries + 1))
        self.frames: list[tuple[int, bool]] = []
        self.begun = 0
        self.closed = 0
        self.takes = asyncio.Event()  # cleared, frames wait
        self.takes.set()

    async def basic_ack(self, tag: int, multiple: bool = False, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - aiormq's
        self.begun += 1
        await self.takes.wait()
        self.frames.append((tag, multiple))
        assert tag in self.left  # it closes the channel for an unknown one
        self.left = [other for other in self.left if (other > tag if multiple else other != tag)]

    async def close(self) -> None:
        self.closed += 1


def acknowledger(channel: object, timeout: float = 5) -> Acknowledger:
    return Acknowledger(cast("Any", channel), timeout)


@given(st.permutations(range(1, 21)), st.lists(st.integers(1, 5)))
def test_nothing_is_acknowledged_before_it_is_settled_in_whatever_order_that_comes(
    order: list[int], sizes: list[int]
) -> None:
    tags, left, settled = Tags(), set(order), set[int]()
    waiting = list(order)
    while waiting:
        size = sizes.pop() if sizes else 1
        batch, waiting = waiting[:size], waiting[size:]
        settled.update(batch)
        for tag, multiple in tags.settle(batch):
            assert tag in left
            taken = {other for other in left if other < tag and multiple} | {tag}
            assert taken <= settled
            left -= taken
        assert left == set(order) - settled


def test_what_is_settled_in_order_goes_as_one() -> None:
    tags = Tags()
    assert tags.settle([2, 1, 3]) == [(3, True)]
    assert tags.settle([4]) == [(4, False)]


def test_what_waits_for_a_slow_one_goes_by_itself() -> None:
    tags = Tags()
    assert tags.settle([2, 3]) == [(2, False), (3, False)]
    assert tags.settle([1, 4]) == [(4, True)]


async def test_what_is_settled_in_one_step_is_written_once() -> None:
    broker = Broker(50)
    together = acknowledger(broker)
    await asyncio.gather(*(together.acknowledge(tag) for tag in range(1, 51)))
    assert broker.frames == [(50, True)]


async def test_what_comes_while_others_are_written_goes_with_the_next() -> None:
    broker = Broker(3)
    together = acknowledger(broker)
    broker.takes.clear()
    first = asyncio.create_task(together.acknowledge(1))
    await until(lambda: broker.begun)
    others = [asyncio.create_task(together.acknowledge(tag)) for tag in (2, 3)]
    await until(lambda: together.settled == 3)
    broker.takes.set()
    await asyncio.gather(first, *others)
    assert broker.frames == [(1, False), (3, True)]


async def test_one_that_is_cancelled_takes_nobody_with_it() -> None:
    broker = Broker(2)
    together = acknowledger(broker)
    cancelled = asyncio.create_task(together.acknowledge(1))
    other = asyncio.create_task(together.acknowledge(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert broker.left == []


async def test_a_write_that_fails_is_reported_to_everybody_and_the_next_goes_on() -> None:
    class Gone(Broker):
        async def basic_ack(self, *_: Any, **__: Any) -> None:
            raise ConnectionResetError

    together = acknowledger(Gone(2))
    for _ in range(2):
        told = await asyncio.gather(
            together.acknowledge(1), together.acknowledge(2), return_exceptions=True
        )
        assert [type(error) for error in told] == [ConnectionResetError, ConnectionResetError]


async def test_a_write_that_hangs_is_given_up() -> None:
    class Hanging(Broker):
        async def basic_ack(self, *_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

    broker = Hanging(1)
    with pytest.raises(TimeoutError):
        await acknowledger(broker, timeout=0.05).acknowledge(1)
    await until(lambda: broker.closed == 1)  # or it would keep what nobody acknowledges any more


async def test_a_connection_that_is_found_dead_while_writing_is_reported_as_lost() -> None:
    class Dead(Broker):
        async def basic_ack(self, *_: Any, **__: Any) -> None:
            raise asyncio.CancelledError  # as aiormq says it, though nobody has cancelled us

    together = acknowledger(Dead(2))
    async with asyncio.timeout(10):
        told = await asyncio.gather(
            together.acknowledge(1), together.acknowledge(2), return_exceptions=True
        )
    assert [type(error) for error in told] == [ConnectionError, ConnectionError]


@pytest.mark.parametrize("when", ["before its first step", "while it gathers", "while it writes"])
async def test_a_writer_that_somebody_else_cancels_says_so_and_leaves_nobody_waiting(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(2)
    broker.takes.clear()
    together = acknowledger(broker)
    waiting = [asyncio.create_task(together.acknowledge(1))]
    await asyncio.sleep(0)
    if when == "while it gathers":
        await asyncio.sleep(0)
    elif when == "while it writes":
        await until(lambda: broker.begun)
        waiting.append(asyncio.create_task(together.acknowledge(2)))
        await asyncio.sleep(0)
    assert together._writing is not None
    together._writing.cancel()
    for task in waiting:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(task, 10)
    await until(lambda: broker.closed)  # so that RabbitMQ delivers them again
    [said] = [each for each in caplog.records if "acknowledgements were cut off" in each.message]
    assert said.exc_info


async def test_a_channel_is_closed_even_if_its_closing_is_cancelled_by_somebody_else() -> None:
    class Slow(Broker):
        closing = 0

        async def basic_ack(self, *_: Any, **__: Any) -> None:
            raise OSError

        async def close(self) -> None:
            self.closing += 1
            if self.closing < 3:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            self.is_closed = True

    channel = Slow(1)
    with pytest.raises(OSError):  # noqa: PT011 - whatever it says
        await acknowledger(channel).acknowledge(1)
    await until(lambda: channel.is_closed)


async def test_none_is_written_while_they_are_held_and_all_are_written_then() -> None:
    channel = Broker(3)
    acknowledging = acknowledger(channel)
    acknowledging.hold()
    tasks = [asyncio.create_task(acknowledging.acknowledge(tag)) for tag in (1, 2)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert channel.begun == acknowledging.written == 0
    acknowledging.resume()
    tasks.append(asyncio.create_task(acknowledging.acknowledge(3)))
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert channel.left == []
    assert acknowledging.written == 3


async def test_what_is_held_before_its_batch_is_written_waits_too() -> None:
    channel = Broker(1)
    acknowledging = acknowledger(channel)
    task = asyncio.create_task(acknowledging.acknowledge(1))
    await asyncio.sleep(0)  # its batch gathers
    acknowledging.hold()
    for _ in range(20):
        await asyncio.sleep(0)
    assert channel.begun == 0
    acknowledging.resume()
    async with asyncio.timeout(5):
        await task
