"""A handler written for aio-pika runs unchanged, whatever it does to its message."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.breaker import CircuitState
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_a_handler_full_of_process_blocks_runs_unchanged(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            await dependency(message)

    await bench.send("a", "b")
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 2)
        dependency.recover()
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]


async def test_an_error_swallowed_outside_of_process_still_counts(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            async with message.process():
                raise ValueError("broken")  # noqa: TRY301 - the case in question
        except ValueError:
            pass

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])


@pytest.mark.parametrize(
    ("settle", "becomes"),
    [
        (lambda message: message.ack(), "handled"),
        (lambda message: message.reject(), "dead"),
        (lambda message: message.nack(requeue=False), "dead"),
        (lambda message: message.reject(requeue=True), "delayed"),
        (lambda message: message.nack(), "delayed"),
    ],
    ids=["ack", "reject", "nack without requeue", "reject with requeue", "nack"],
)
async def test_what_a_handler_does_to_its_message_means_what_it_meant(
    bench: Bench, settle: object, becomes: str
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await settle(message)  # type: ignore[operator]

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: "a" in bench.happened(becomes))


WAYS_TO_PROCESS: dict[str, dict[str, bool]] = {
    "plain": {},
    "requeue": {"requeue": True},
    "reject_on_redelivered": {"reject_on_redelivered": True},
    "both": {"requeue": True, "reject_on_redelivered": True},
    "ignore_processed": {"ignore_processed": True},
}


@pytest.mark.parametrize("way", WAYS_TO_PROCESS.values(), ids=WAYS_TO_PROCESS)
async def test_an_error_within_process_is_tried_again_whatever_its_arguments(
    bench: Bench, way: dict[str, bool]
) -> None:
    attempts = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal attempts
        async with message.process(**way) as entered:
            assert entered is message
            attempts += 1
            if attempts == 1:
                raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert bench.happened("delayed") == ["a"]


async def test_a_message_settled_within_process_is_what_it_was_settled_as(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        async with message.process(ignore_processed=True):
            match message.body:
                case b"ack":
                    await message.ack()
                case b"reject":
                    await message.reject(requeue=False)
                case b"nack":
                    await message.nack()
            assert message.processed

    await bench.send("ack", "reject", "nack")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: sorted(bench.happened("dead")) == ["nack", "reject"])
    assert bench.happened("handled") == ["ack"]
    assert "after it had settled" not in caplog.text  # leaving process() raised nothing


async def test_settling_twice_raises_as_it_does_in_aio_pika(bench: Bench) -> None:
    raised: list[BaseException] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        await message.ack()
        try:
            await message.reject()
        except aio_pika.exceptions.MessageProcessError as error:
            raised.append(error)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert raised


@pytest.mark.parametrize(
    "settle",
    [
        lambda message: message.ack(multiple=True),
        lambda message: message.nack(multiple=True, requeue=False),
    ],
    ids=["ack", "nack"],
)
async def test_settling_the_messages_of_others_is_refused_and_seen(
    bench: Bench, settle: Any
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await settle(message)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert "other handlers" in str(dead.headers["fusewire-exception-message"])


async def test_settling_after_the_handler_has_returned_is_reported(bench: Bench) -> None:
    late: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def work(message: AbstractIncomingMessage) -> None:
        await go_on.wait()
        async with message.process():
            pass

    async def handler(message: AbstractIncomingMessage) -> None:
        late.append(asyncio.create_task(work(message)))

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
        go_on.set()
        with pytest.raises(RuntimeError, match="within its handler"):
            await late[0]


async def test_a_message_given_back_because_of_a_rejection_is_parked_and_no_attempt(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await dependency(message)
        except Exception:  # noqa: BLE001 - as many handlers do
            await message.nack(requeue=True)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert bench.happened("dead") == []


@pytest.mark.parametrize("requeue", [True, False])
async def test_what_was_caught_and_given_back_opens_the_circuit_around_the_handler(
    bench: Bench,
    *,
    requeue: bool,
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            raise ConnectionError("payments is down")  # noqa: TRY301 - the case in question
        except ConnectionError:
            await message.nack(requeue=requeue)

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, guard_with="payments", concurrency=1):
        if requeue:
            await until(lambda: bench.happened("parked"))
        else:  # the message itself is not wanted, which says nothing of payments
            await until(lambda: len(bench.happened("dead")) == 3)
            assert bench.registry.get("payments").state is CircuitState.CLOSED


async def test_a_message_rejected_because_of_an_error_shows_it(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            raise KeyError("account")  # noqa: TRY301 - the case in question
        except KeyError:
            await message.reject(requeue=message.body == b"again")

    await bench.send("once", "again")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: len(bench.happened("dead")) == 2)
    for dead in await bench.dead():
        assert "KeyError: 'account'" in str(dead.headers["fusewire-stack"])


async def test_a_handler_cut_off_within_process_leaves_its_message_in_the_queue(
    bench: Bench,
) -> None:
    started = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        async with message.process():
            started.set()
            await asyncio.Event().wait()

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0.05):
        await asyncio.wait_for(started.wait(), 10)

    async def back() -> bool:
        return await bench.broker.depth(bench.queue) == 1

    await until(back)
    assert bench.events == []


async def test_the_body_of_an_iterators_loop_works_on_one_message_at_a_time(bench: Bench) -> None:
    at_work = 0
    seen: list[str] = []

    async def body(message: AbstractIncomingMessage) -> None:
        nonlocal at_work
        async with message.process():
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0)
            seen.append(message.body.decode())
            at_work -= 1

    bodies = [f"m{number}" for number in range(20)]
    await bench.send(*bodies)
    async with bench.consumer(body, concurrency=1):
        await until(lambda: len(seen) == 20)
    assert seen == bodies


class Service:
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_order(self, message: AbstractIncomingMessage) -> None:
        self.seen.append(message.body.decode())

    async def on_any(self, prefix: str, message: AbstractIncomingMessage) -> None:
        self.seen.append(message.body.decode())

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        self.seen.append(message.body.decode())

    def plain(self, message: AbstractIncomingMessage) -> None:
        self.seen.append(message.body.decode())


@pytest.mark.parametrize(
    "handler",
    [
        lambda service: service.on_order,
        lambda service: partial(service.on_any, "orders"),
        lambda service: service,
        lambda service: service.plain,
    ],
    ids=["method", "partial", "object", "plain function"],
)
async def test_whatever_consume_takes_is_a_handler(bench: Bench, handler: Any) -> None:
    service = Service()
    await bench.send("a")
    async with bench.consumer(handler(service)):
        await until(lambda: bench.happened("handled") == ["a"])
    assert service.seen == ["a"]
