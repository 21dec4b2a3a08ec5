"""A rejection by an open circuit is never a message's end, whatever its handler makes of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeAlias

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.parking import Reject
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

Work: TypeAlias = "Callable[[AbstractIncomingMessage], Awaitable[None]]"


async def _reject_it(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
    except Exception:  # noqa: BLE001 - as many handlers do
        await message.reject()


async def _nack_it(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
    except Exception:  # noqa: BLE001
        await message.nack(requeue=False)


async def _reject_it_later(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
        worked = True
    except Exception:  # noqa: BLE001
        worked = False
    if not worked:
        await message.reject()


async def _ask_for_it_later(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
        worked = True
    except Exception:  # noqa: BLE001
        worked = False
    if not worked:
        await message.nack()


async def _raise_reject(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
    except Exception as error:
        raise Reject("no") from error


async def _raise_reject_of_nothing(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
    except Exception:  # noqa: BLE001
        raise Reject("no") from None


async def _raise_reject_later(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
        worked = True
    except Exception:  # noqa: BLE001
        worked = False
    if not worked:
        raise Reject("no")


async def _raise_later(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
        worked = True
    except Exception:  # noqa: BLE001
        worked = False
    if not worked:
        raise RuntimeError("could not be charged")


async def _reject_and_raise(message: AbstractIncomingMessage, work: Work) -> None:
    try:
        await work(message)
    except Exception:
        await message.reject()
        raise


WAYS = [
    _reject_it,
    _nack_it,
    _reject_it_later,
    _ask_for_it_later,
    _raise_reject,
    _raise_reject_of_nothing,
    _raise_reject_later,
    _raise_later,
    _reject_and_raise,
]


@pytest.mark.parametrize("on_open", ["park", "pause"])
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__.lstrip("_") for way in WAYS])
async def test_what_an_open_circuit_refused_is_made_after_recovery(
    bench: Bench, way: Callable[[AbstractIncomingMessage, Work], Awaitable[None]], on_open: str
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    called = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal called
        called += 1
        await way(message, dependency)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1, on_open=on_open):
        await until(lambda: called)
        if on_open == "park":
            await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: dependency.effects == ["a"])
        await until(lambda: bench.happened("handled") or bench.happened("replayed"))
    assert bench.happened("dead") == []


@pytest.mark.parametrize("on_open", ["park", "pause"])
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__.lstrip("_") for way in WAYS])
async def test_a_refusal_is_no_attempt_though_the_circuit_admits_again_when_the_handler_ends(
    bench: Bench, way: Callable[[AbstractIncomingMessage, Work], Awaitable[None]], on_open: str
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def work(message: AbstractIncomingMessage) -> None:
        try:
            await dependency(message)
        finally:
            dependency.recover()

    async def handler(message: AbstractIncomingMessage) -> None:
        await way(message, work)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1, on_open=on_open):
        await until(lambda: dependency.effects == ["a"])
        await until(lambda: bench.happened("handled") or bench.happened("replayed"))
    assert bench.happened("dead") == []


@pytest.mark.parametrize("way", WAYS[:2], ids=["reject", "nack"])
async def test_a_rejection_for_the_messages_own_fault_is_its_end_in_an_outage_too(
    bench: Bench, way: Callable[[AbstractIncomingMessage, Work], Awaitable[None]]
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        async def work(message: AbstractIncomingMessage) -> None:
            with contextlib.suppress(Exception):  # what it asked for is not needed
                await dependency(message)
            raise ValueError("no such account")

        await way(message, work)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])


async def test_a_call_that_failed_before_the_refusal_makes_it_an_attempt(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.down = True

    async def handler(message: AbstractIncomingMessage) -> None:
        worked = False
        for _ in range(4):  # it opens the circuit by itself
            with contextlib.suppress(Exception):
                await dependency(message)
                worked = True
        if not worked:
            await message.reject()

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert dead.headers["fusewire-attempts"] == 1


async def test_a_refusal_caught_in_a_plain_function_parks_too(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    effects: list[bytes] = []

    def handler(message: AbstractIncomingMessage) -> None:
        try:
            dependency.breaker.call(effects.append, message.body)
        except Exception:  # noqa: BLE001
            message.reject(requeue=False)  # type: ignore[unused-coroutine] # nothing to await with

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert effects == [b"a"]


async def test_a_handler_that_swallows_it_is_believed_with_one_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        with contextlib.suppress(Exception):
            await dependency(message)

    await bench.send("a", "b", "c")
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("handled")) == 3)
    warnings = [record for record in caplog.records if "counts as handled" in record.message]
    assert len(warnings) == 1
    assert "'payments'" in warnings[0].message
    assert "swallows_it" in warnings[0].message


async def test_a_swallowed_refusal_of_a_circuit_that_the_consumer_cannot_see_is_an_attempt(
    bench: Bench,
) -> None:
    elsewhere = Dependency(BreakerRegistry())
    elsewhere.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        await _raise_later(message, elsewhere)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    assert bench.happened("delayed") == ["a"]


async def test_a_refusal_of_a_circuit_that_the_consumer_cannot_see_is_reported_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = Dependency(BreakerRegistry())
    elsewhere.trip()
    await bench.send("a", "b")
    async with bench.consumer(elsewhere):
        await until(lambda: len(bench.happened("parked")) == 2)
        elsewhere.recover()
        await until(lambda: len(bench.happened("replayed")) == 2)
    warnings = [record for record in caplog.records if "same registry=" in record.message]
    assert len(warnings) == 1
    assert "'payments'" in warnings[0].message
