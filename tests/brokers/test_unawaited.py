"""Nothing that the broker begins is left unawaited, whatever cuts it off."""

from __future__ import annotations

import asyncio
import gc
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aio_pika.abc import UnderlayConnection

from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq._acknowledging import Acknowledger
from fusewire.brokers.rabbitmq._addresses import addresses
from fusewire.brokers.rabbitmq._connection import Link, close
from fusewire.brokers.rabbitmq._workarounds.cancellation import spawn, within
from fusewire.brokers.rabbitmq._workarounds.close_ok import ConnectionFrames
from fusewire.errors import BrokerUnavailableError
from fusewire.forwarding import ForwarderHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Channel:
    """A channel whose acknowledgements cannot be written."""

    async def basic_ack(self, *_: object, **__: object) -> None:
        raise ConnectionError("gone")

    async def close(self) -> None:
        await asyncio.sleep(60)


def collected() -> list[str]:
    """Collect, and return what finalizers complain of."""
    found: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda left: found.append(f"{left.object!r}: {left.exc_value}")
    try:
        gc.collect()
    finally:
        sys.unraisablehook = before
    return found


async def failed_acknowledgement() -> None:
    with pytest.raises(ConnectionError):
        await Acknowledger(Channel(), 5).acknowledge(1)  # type: ignore[arg-type]


async def answer_that_waits() -> None:
    frames: asyncio.Queue[object] = asyncio.Queue(1)
    frames.put_nowait("full")
    ConnectionFrames(frames, 5).put_nowait("answer")


async def closed_channel() -> None:
    spawn(close(Channel(), 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", [failed_acknowledgement, answer_that_waits, closed_channel])
def test_what_has_just_begun_when_the_event_loop_ends_is_not_left_unawaited(
    begun: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    asyncio.run(begun())  # cancels what it has left, before its first step
    assert collected() == []


async def test_a_connection_that_could_not_be_closed_is_not_closed_again_when_it_is_collected(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(connection: UnderlayConnection, _: object) -> None:
        await connection.connection.close()
        raise ConnectionError("gone")

    link = Link(addresses(amqp_url), purpose="test", timeout=5, ssl_context=None)
    await link.connection()
    with monkeypatch.context() as patch:
        patch.setattr(UnderlayConnection, "close", fails)
        await link.close()
    assert await asyncio.to_thread(collected) == []  # in a thread without an event loop


async def test_opening_a_channel_that_somebody_else_cancels_is_a_broker_that_does_not_answer(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(_: Link, __: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    link = Link(addresses(amqp_url), purpose="test", timeout=5, ssl_context=None)
    monkeypatch.setattr(Link, "_open", cancelled)
    with pytest.raises(BrokerUnavailableError, match="gave no channel"):
        await link.open_channel(confirms=False)
    await link.close()


def test_a_forwarding_whose_event_loop_is_closed_leaves_nothing_unawaited() -> None:
    loop = asyncio.new_event_loop()
    consumer = SimpleNamespace(topology=Topology("calls"))
    forwarding = ForwarderHandle(consumer, None, None, loop, None)  # type: ignore[arg-type]
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        forwarding.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(forwarding.end())
    assert collected() == []


async def test_work_that_takes_too_long_is_cut_off() -> None:
    with pytest.raises(TimeoutError):
        await within(0.01, partial(asyncio.sleep, 60))
    assert await within(5, partial(asyncio.sleep, 0, "done")) == "done"
