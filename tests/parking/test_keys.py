"""Handlers' calls have keys of their own, the same on every attempt, in whatever order."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerSettings
from fusewire.brokers import Message
from fusewire.interceptors import aio_interceptors, guard
from fusewire.operation import current_operation, fallbacks_allowed
from fusewire.parking._history import KEYS_BY_REQUEST, History, from_headers
from tests.forwarding.conftest import CHANNEL_OPTIONS, CHARGE, PaymentsServer
from tests.support import charging_worker
from tests.support.grpc_keys import key_of
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench
    from tests.support.processes import KeptProcess

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def payments() -> Iterator[PaymentsServer]:
    server = PaymentsServer()
    yield server
    server.stop()


@asynccontextmanager
async def charges(bench: Bench, payments: PaymentsServer, **options: Any) -> AsyncIterator[Any]:
    """Provide a method that charges over a guarded channel."""
    interceptors = aio_interceptors(registry=bench.registry, **{"idempotent": {CHARGE}, **options})
    async with grpc.aio.insecure_channel(
        payments.target, interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        yield channel.unary_unary(CHARGE)


def charge_key(what: str, operation_id: str = "a", number: int = 1) -> str:
    return key_of(what.encode(), operation_id=operation_id, method=CHARGE, number=number)


def fails_first(payments: PaymentsServer, what: str) -> None:
    """Have the first charge of `what` fail; whether it took effect, its caller cannot know."""
    failing = {charge_key(what)}

    def answer(key: str) -> grpc.StatusCode | None:
        if key in failing:
            failing.remove(key)
            return UNAVAILABLE
        return None

    payments.answer = answer


async def test_a_handler_that_goes_on_where_it_left_off_makes_every_payment(
    bench: Bench, payments: PaymentsServer
) -> None:
    paid: list[str] = []
    fails_first(payments, "bob")
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            for who in ("alice", "bob", "carol"):
                if who not in paid:
                    await charge(who.encode(), timeout=5)
                    paid.append(who)

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled") == ["a"])
    assert payments.effects == {charge_key(who): who.encode() for who in paid}
    assert len(paid) == 3


@pytest.mark.parametrize("side_by_side", ["one by one", "side by side"])
async def test_calls_in_another_order_on_each_attempt_have_the_same_keys(
    bench: Bench, payments: PaymentsServer, side_by_side: str
) -> None:
    people = ["alice", "bob", "carol"]
    orders = itertools.cycle(itertools.permutations(people))
    payments.answer = lambda _: UNAVAILABLE if len(payments.seen) < 8 else None
    patient = BreakerSettings(failure_threshold=100)
    async with charges(bench, payments, settings=patient) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            order = next(orders)
            if side_by_side == "side by side":
                made = [charge(who.encode(), timeout=5) for who in order]
                ends = await asyncio.gather(*made, return_exceptions=True)
                for end in ends:
                    if isinstance(end, Exception):
                        raise end
                return
            for who in order:
                await charge(who.encode(), timeout=5)

        await bench.send("a")
        async with bench.consumer(handler, max_attempts=20):
            await until(lambda: bench.happened("handled") == ["a"])
    assert payments.effects == {charge_key(who): who.encode() for who in people}
    assert {key for key, _ in payments.seen} == {charge_key(who) for who in people}


async def test_two_equal_payments_are_two_and_a_retry_is_none(
    bench: Bench, payments: PaymentsServer
) -> None:
    fails_first(payments, "alice")
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            for _two in range(2):
                try:
                    await charge(b"alice", timeout=5)
                except grpc.RpcError:
                    await charge(b"alice", timeout=5)

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled") == ["a"])
    first, second = charge_key("alice"), charge_key("alice", number=2)
    assert [key for key, _ in payments.seen] == [first, first, second]


async def test_a_plain_handlers_calls_have_keys_too(bench: Bench, payments: PaymentsServer) -> None:
    fails_first(payments, "bob")
    with guard(
        grpc.insecure_channel(payments.target), registry=bench.registry, idempotent={CHARGE}
    ) as channel:
        charge = channel.unary_unary(CHARGE)

        def handler(_: AbstractIncomingMessage) -> None:
            for who in ("alice", "bob"):
                charge(who.encode(), timeout=5)

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled") == ["a"])
    assert [key for key, _ in payments.seen] == [
        charge_key(who) for who in ("alice", "bob", "alice", "bob")
    ]


async def test_another_process_sends_the_same_keys_on_a_replay(
    bench: Bench,
    payments: PaymentsServer,
    tmp_path: Path,
    forget_queue: Callable[[str], None],
) -> None:
    forget_queue(f"{bench.queue}.parked.{charging_worker.SEARCH}")
    log = tmp_path / "log"
    log.touch()

    def start(search: str) -> KeptProcess:
        return charging_worker.start(bench.address, bench.queue, payments.target, log, search)

    def happened() -> list[str]:
        return log.read_text().splitlines()

    await bench.send("a")
    with start("open") as one:
        await until(lambda: happened() == ["parked"], "parked", limit=60)
        assert one.stop() == 0
    calls = len(payments.seen)
    with start("closed") as another:
        await until(lambda: happened() == ["parked", "replayed"], "replayed", limit=60)
        assert another.stop() == 0
    assert len(payments.seen) > calls > 0
    assert {key for key, _ in payments.seen} == {charge_key("alice")}


# Keys that change


@pytest.mark.parametrize("keyed", ["by us", "by the handler"])
async def test_a_request_that_differs_each_time_is_reported(
    bench: Bench, payments: PaymentsServer, caplog: pytest.LogCaptureFixture, keyed: str
) -> None:
    attempts = itertools.count(1)
    payments.answer = lambda _: UNAVAILABLE if len(payments.seen) == 1 else None
    async with charges(bench, payments) as charge:

        async def handler(message: AbstractIncomingMessage) -> None:
            request = f"alice, attempt {next(attempts)}".encode()
            own = (("idempotency-key", f"{message.message_id}/charge"),)
            await charge(request, timeout=5, metadata=own if keyed != "by us" else ())

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled") == ["a"])
            if keyed == "by us":
                await until(lambda: bench.happened("in_doubt") == ["a"])
    doubt = [event for event in bench.events if event.outcome == "in_doubt"]
    if keyed == "by us":
        assert [event.reason for event in doubt] == ["key_not_sent_again"]
        warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert charge_key("alice, attempt 1") in warnings[-1].getMessage()
    else:
        assert doubt == []
        assert "idempotency-key of their own" not in caplog.text
        assert {key for key, _ in payments.seen} == {"a/charge"}


async def test_keys_in_doubt_are_kept_until_they_are_sent_again(
    bench: Bench, payments: PaymentsServer
) -> None:
    """Also through attempts that fail for another reason before they come to it."""
    fails_first(payments, "alice")
    ends = iter(["charge", "fail", "charge"])
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            if next(ends) == "fail":
                raise ValueError("my own")
            await charge(b"alice", timeout=5)

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled") == ["a"])
    assert bench.happened("in_doubt") == []
    assert [key for key, _ in payments.seen] == [charge_key("alice")] * 2


async def test_a_dead_message_names_the_keys_in_doubt(
    bench: Bench, payments: PaymentsServer
) -> None:
    payments.answer = lambda _: UNAVAILABLE
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            bench.registry.get(CHARGE).reset()
            await charge(b"alice", timeout=5)

        await bench.send("a")
        async with bench.consumer(handler, max_attempts=1):
            await until(lambda: bench.happened("dead") == ["a"])
    [dead] = await bench.dead()
    assert dead.headers["fusewire-doubtful-keys"] == charge_key("alice")
    assert dead.headers["fusewire-key-scheme"] == KEYS_BY_REQUEST


def test_the_last_16_keys_in_doubt_are_kept() -> None:
    history = History(operation_id="a").with_doubtful_keys(f"k{number}" for number in range(20))
    assert history.doubtful_keys.split() == [f"k{number}" for number in range(4, 20)]
    assert history.with_doubtful_keys(()).doubtful_keys == ""


# Messages of a release that made keys otherwise


def by_former_release(message: Message) -> Message:
    """Return `message` as a release left it in a queue that knew nothing of key schemes."""
    history = History(operation_id="a", queue="q", times_parked=1, attempts=1, key_scheme=0)
    return history.to_headers(message)


async def test_a_message_that_was_parked_with_the_former_keys_keeps_them(
    bench: Bench, payments: PaymentsServer
) -> None:
    payments.answer = lambda _: UNAVAILABLE if len(payments.seen) == 2 else None
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            for who in ("alice", "bob"):
                await charge(who.encode(), timeout=5)

        message = Message(body=b"a", message_id="a", routing_key=bench.queue)
        await bench.broker.publish(bench.queue, by_former_release(message))
        async with bench.consumer(handler):
            await until(lambda: bench.happened("replayed") == ["a"])
    former = [f"a{CHARGE}/{number}" for number in (1, 2)]
    assert [key for key, _ in payments.seen] == former * 2


def test_a_record_says_which_scheme_its_keys_follow() -> None:
    plain = Message(body=b"", message_id="a", headers={"fusewire-operation-id": "given"})
    fresh = from_headers(plain, operation_id="a")
    assert fresh.key_scheme == KEYS_BY_REQUEST
    assert fresh.to_headers(plain).headers["fusewire-key-scheme"] == KEYS_BY_REQUEST
    assert from_headers(fresh.to_headers(plain), operation_id="a") == fresh
    former = from_headers(by_former_release(plain), operation_id="a")
    assert former.key_scheme == 0
    assert "fusewire-key-scheme" not in former.to_headers(plain).headers
    assert from_headers(former.to_headers(plain), operation_id="a") == dataclasses.replace(former)


# The end of the handler


async def test_what_outlives_its_handler_has_neither_operation_nor_suppression(
    bench: Bench, payments: PaymentsServer, caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()
    outliving: list[asyncio.Task[None]] = []
    seen: list[object] = []
    async with charges(bench, payments) as charge:

        async def outlive() -> None:
            await left.wait()
            seen.append((current_operation(), fallbacks_allowed()))
            await charge(b"later", timeout=5)
            await charge(b"later", timeout=5)

        async def handler(_: AbstractIncomingMessage) -> None:
            assert not fallbacks_allowed()
            outliving.append(asyncio.create_task(outlive()))

        bench.registry.get("payments").force_open()
        await bench.send("a")
        async with bench.consumer(handler, depends_on="payments"):
            await until(lambda: bench.happened("parked") == ["a"])
            bench.registry.get("payments").reset()
            await until(lambda: bench.happened("replayed") == ["a"])
        left.set()
        await outliving[0]
    assert seen == [(None, True)]
    assert [key for key, _ in payments.seen] == ["", ""]
    assert caplog.text.count("outlives its message's handler") == 1


# Ids that cannot stand in metadata


@pytest.mark.parametrize("message_id", ["größe-1", "two\nlines", "x" * 20_000, " spaces ", "a/b%"])
async def test_any_message_id_makes_a_key_that_can_be_sent(
    bench: Bench, payments: PaymentsServer, message_id: str
) -> None:
    async with charges(bench, payments) as charge:

        async def handler(_: AbstractIncomingMessage) -> None:
            await charge(b"alice", timeout=5)

        headers = {"fusewire-operation-id": message_id}
        await bench.send("a", message_id=None, headers=headers)
        async with bench.consumer(handler):
            await until(lambda: bench.happened("handled"))
    assert bench.happened("handled") == [message_id]
    assert len(payments.effects) == 1
