"""What counts as a failure of what, and what becomes of the message, on every broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState
from fusewire.errors import CircuitOpenError
from fusewire.parking import Reject, Retry
from tests.support.circuits import open_circuit
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_a_failed_attempt_is_delayed_and_made_again_while_the_circuit_is_closed(
    bench: Bench,
) -> None:
    attempts: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        attempts.append(message.body.decode())
        if len(attempts) < 3:
            raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert bench.happened("delayed") == ["a", "a"]


async def test_a_message_that_always_fails_is_dead_with_its_story(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise ValueError("no such account: 17")

    await bench.send("a", headers={"tenant": "blue"}, correlation_id="c-1")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.body == b"a"
    assert dead.correlation_id == "c-1"
    assert dead.headers["tenant"] == "blue"
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert dead.headers["fusewire-attempts"] == 2
    assert dead.headers["fusewire-exception"] == "ValueError"
    assert dead.headers["fusewire-exception-message"] == "no such account: 17"
    assert "in handler" in str(dead.headers["fusewire-stack"])
    assert dead.headers["fusewire-queue"] == bench.queue


async def test_reject_puts_a_message_aside_at_once(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise Reject("the account is closed")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "rejected"
    assert bench.happened("delayed") == []


async def test_a_poison_message_does_not_hold_the_circuit_open(bench: Bench) -> None:
    effects: list[str] = []
    breaker = bench.registry.get("payments")

    async def work(body: str) -> None:
        if body == "poison":
            raise ConnectionError("it makes the server fail")
        effects.append(body)

    async def handler(message: AbstractIncomingMessage) -> None:
        await breaker.call_async(work, message.body.decode())

    for _ in range(2):
        breaker.acquire().failure()
    await bench.send("poison", "a", "b", "c")
    async with bench.consumer(handler, depends_on="payments", concurrency=1, max_attempts=2):
        await until(lambda: len(effects) == 3)
        await until(lambda: bench.happened("dead") == ["poison"])
    assert sorted(effects) == ["a", "b", "c"]


async def test_guard_with_takes_the_permit_around_an_unguarded_handler(bench: Bench) -> None:
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ConnectionError("down")

    registry = BreakerRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=300, half_open_max_calls=1)
    )
    await bench.send("a", "b", "c")
    async with bench.consumer(handler, guard_with="payments", concurrency=1, registry=registry):
        await until(lambda: bench.happened("parked"))
        registry.get("payments").half_open()
        done = ("handled", "replayed")
        await until(lambda: sum(len(bench.happened(what)) for what in done) == 3)


@pytest.mark.parametrize("plain", [False, True])
async def test_a_call_of_the_circuit_that_guard_with_names_is_one_with_its_handler(
    bench: Bench,
    plain: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    settings = BreakerSettings(failure_threshold=2, half_open_max_calls=1)
    breaker = bench.registry.get("payments", settings)
    calls = 0

    @breaker
    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("down")

    async def handler(_: AbstractIncomingMessage) -> None:
        call()

    def plain_handler(_: AbstractIncomingMessage) -> None:
        call()

    await bench.send("a")
    options = {"guard_with": "payments", "concurrency": 1}
    async with bench.consumer(plain_handler if plain else handler, **options):
        await until(lambda: bench.happened("handled") == ["a"])
        counters = breaker.snapshot().counters
        assert (counters.succeeded, counters.failed) == (1, 1)
        breaker.force_open()
        breaker.automatic()
        open_circuit(breaker)
        breaker.half_open()
        await bench.send("b")
        await until(lambda: breaker.state is CircuitState.CLOSED)
    assert breaker.snapshot().counters.late == 0


async def test_a_malformed_message_goes_to_the_dead_queue_and_the_rest_go_on(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("bad", headers={"fusewire-format": 99})
    await bench.send("worse", headers={"fusewire-attempts": "many"})
    await bench.send("good")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("handled") == ["good"])
        await until(lambda: len(bench.happened("dead")) == 2)
    assert {message.headers["fusewire-reason"] for message in await bench.dead()} == {"malformed"}


async def test_a_message_past_its_deadline_is_expired_and_seen(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("late", headers={"fusewire-not-after-ms": 1})
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("dead") == ["late"])
    assert dependency.calls == 0
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "expired"


# -- dead at once ----------------------------------------------------------------------------------


class NoSuchAccountError(ValueError):
    pass


@pytest.mark.parametrize(
    "dead_on",
    [ValueError, (KeyError, ValueError), lambda error: "account" in str(error)],
    ids=["type", "types", "function"],
)
async def test_an_error_that_will_never_go_away_puts_its_message_aside_at_once(
    bench: Bench, dead_on: Any
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"bad":
            raise NoSuchAccountError("no such account: 17")
        raise RuntimeError("something else")

    await bench.send("bad", "odd")
    async with bench.consumer(handler, dead_on=dead_on, max_attempts=2):
        await until(lambda: len(bench.happened("dead")) == 2)
    assert bench.happened("delayed") == ["odd"]
    bad, odd = sorted(await bench.dead(), key=lambda message: message.body)
    assert bad.headers["fusewire-reason"] == "rejected"
    assert bad.headers["fusewire-attempts"] == 1
    assert str(bad.headers["fusewire-exception"]).endswith("NoSuchAccountError")
    assert odd.headers["fusewire-reason"] == "exhausted"


async def test_a_rejection_parks_its_message_though_its_error_would_be_dead_at_once(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await dependency(message)
        except CircuitOpenError as error:
            raise ValueError("no payment") from error

    await bench.send("a")
    async with bench.consumer(handler, dead_on=Exception):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert bench.happened("dead") == []


async def test_a_rejection_after_a_failed_call_is_no_error_that_is_dead_at_once(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.break_down()

    async def handler(message: AbstractIncomingMessage) -> None:
        for _ in range(2):  # a retry within the handler, which opens the circuit
            with contextlib.suppress(ConnectionError):
                await dependency(message)
        await dependency(message)

    await bench.send("a")
    async with bench.consumer(handler, dead_on=Exception):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])


async def test_a_rule_that_raises_leaves_the_message_to_be_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler, dead_on=lambda error: error.no_such_thing):
        await until(lambda: bench.happened("handled") == ["a"])
    assert "dead_on failed" in caplog.text


# -- whose failure ---------------------------------------------------------------------------------


async def test_a_failed_call_through_any_breaker_is_its_dependencys_failure(bench: Bench) -> None:
    dependency = Dependency(bench.registry, "database")
    dependency.down = True
    await bench.send("a")
    async with bench.consumer(dependency, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-dependency"] == "database"


async def test_the_failure_that_opens_a_circuit_parks_its_message(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.break_down()
    dependency.breaker.acquire().failure()
    await bench.send("a")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert bench.happened("delayed") == []


@pytest.mark.parametrize(
    "error",
    [Reject("bad order"), Retry(after=600), NoSuchAccountError("17")],
    ids=["Reject", "Retry", "dead_on"],
)
async def test_what_a_handler_says_of_its_message_opens_no_circuit(
    bench: Bench, error: Exception
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise error

    bodies = [f"m{number}" for number in range(6)]
    await bench.send(*bodies)
    async with bench.consumer(
        handler, guard_with="payments", dead_on=NoSuchAccountError, delays=(0.05, 0.2, 600)
    ):
        settled = "postponed" if isinstance(error, Retry) else "dead"
        await until(lambda: len(bench.happened(settled)) == 6)
    assert bench.registry.get("payments").state is CircuitState.CLOSED
    assert bench.happened("parked") == []


# -- a time that the handler names -----------------------------------------------------------------


@pytest.mark.parametrize("by", ["after", "at"])
async def test_a_message_is_tried_again_at_the_time_that_its_handler_names(
    bench: Bench, by: str
) -> None:
    calls: list[float] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(time.time())
        if len(calls) == 1:
            if by == "after":
                raise Retry("rate limited", after=0.5)
            raise Retry("rate limited", at=datetime.now(UTC) + timedelta(seconds=0.5))

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("handled") == ["a"])
    first, second = calls
    assert second - first >= 0.499  # it is never early; brokers count whole milliseconds
    assert bench.happened("postponed") == ["a"]
    # In several hops where a broker does not keep every delay; none calls the handler.
    assert (bench.happened("delayed") == []) == bench.broker.capabilities.any_delay
    assert {event.reason for event in bench.events} == {"postponed"}


async def test_a_time_named_during_a_replay_is_kept_too(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    asked: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        await dependency(message)
        if not asked:
            asked.append("once")
            raise Retry(after=0.1)

    await bench.send("a")
    async with bench.consumer(handler, depends_on="payments"):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert "a" in bench.happened("postponed")
    assert dependency.effects == ["a", "a"]


async def test_a_named_time_decides_also_when_it_comes_from_a_rejection(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await dependency(message)
        except CircuitOpenError as error:
            raise Retry("when it suits us", after=600) from error

    await bench.send("a")
    async with bench.consumer(handler, delays=(0.05, 0.2, 600)):
        await until(lambda: bench.happened("postponed") == ["a"])
    assert bench.happened("parked") == []


async def test_a_message_that_is_asked_for_again_and_again_ends_by_its_age(bench: Bench) -> None:
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        raise Retry("not yet", after=0.1)

    await bench.send("a")
    async with bench.consumer(handler, max_age=2, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "expired"
    assert dead.headers["fusewire-times-postponed"] == calls >= 2
    assert "not yet" in str(dead.headers["fusewire-exception-message"])
    assert "fusewire-attempts" not in dead.headers


async def test_a_parked_message_past_its_age_is_dead_without_a_call(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on="payments", max_age=0.05):
        await until(lambda: bench.happened("parked") == ["a"])
        await asyncio.sleep(0.1)  # its age
        dependency.recover()
        await until(lambda: bench.happened("dead") == ["a"])
    assert dependency.calls == 0
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "expired"
