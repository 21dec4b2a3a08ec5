"""What a handler sees of its message, and what becomes of what it changes."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.parking import MessageView, Retry
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_a_message_is_redelivered_on_every_attempt_but_the_first(
    bench: Bench, on_open: str
) -> None:
    seen: list[bool | None] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message.redelivered)
        raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=3, on_open=on_open):
        await until(lambda: bench.happened("dead") == ["a"])
    assert seen == [False, True, True]


async def test_a_message_that_was_postponed_is_redelivered(bench: Bench) -> None:
    seen: list[bool | None] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message.redelivered)
        if len(seen) == 1:
            raise Retry(after=0.01)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert seen == [False, True]


async def test_a_message_whose_handler_met_an_open_circuit_is_redelivered(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    seen: list[bool | None] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message.redelivered)
        await dependency(message)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert seen[0] is False
    assert all(seen[1:])
    assert len(seen) > 1


async def test_what_a_handler_changes_in_the_headers_is_not_stored(bench: Bench) -> None:
    headers = {"trace": {"spans": ["a"], "tags": {"shop": "x"}}, "flat": "x"}
    seen: list[Any] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        held: Any = message.headers
        seen.append((held["flat"], list(held["trace"]["spans"]), dict(held["trace"]["tags"])))
        held["flat"] = "changed"
        held["trace"]["spans"].append("mine")
        held["trace"]["tags"]["user"] = "mine"
        raise ValueError("not yet")

    await bench.send("a", headers=headers)
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    assert seen == [("x", ["a"], {"shop": "x"})] * 2
    (dead,) = await bench.dead()
    assert {key: dead.headers[key] for key in headers} == headers


def view() -> MessageView:
    return MessageView(Message(body=b"a"), redelivered=False, headers={})


async def test_what_was_said_may_be_awaited_more_than_once_or_never() -> None:
    said = view().ack()
    await said
    await said
    view().nack().close()
    assert asyncio.iscoroutine(view().reject())


async def test_an_error_thrown_into_it_comes_out() -> None:
    with pytest.raises(ValueError, match="a"):
        view().ack().throw(ValueError("a"))
    with pytest.raises(ValueError, match="b"):
        view().ack().throw(ValueError, ValueError("b"))


def test_rejecting_in_a_plain_function_notes_what_was_caught() -> None:
    message = view()
    try:
        raise KeyError("account")  # noqa: TRY301 - the case in question
    except KeyError:
        message.reject()  # type: ignore[unused-coroutine] # a plain function cannot await
        caught = sys.exception()
    assert message.rejected_because is caught
