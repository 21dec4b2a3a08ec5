"""What is wrong is said at the first message, not when the last attempt has failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.errors import SettingsError
from fusewire.parking import ParkingConsumer, Reject, Retry
from fusewire.parking._failure_log import FailureLog
from fusewire.parking._history import History
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

SQLITE = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)


def first_failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "the first attempt of" in record.message]


@pytest.mark.parametrize("on_open", ["park", "pause"])
async def test_the_first_failed_attempt_of_a_message_is_logged_with_its_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture, on_open: str
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        raise ValueError("no such account")

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=3, on_open=on_open):
        await until(lambda: bench.happened("dead") == ["a"])
    (logged,) = first_failures(caplog)
    assert logged.levelno == logging.WARNING
    assert "operation a" in logged.message
    assert "<locals>.handler" in logged.message
    assert "no such account" in caplog.text
    assert logged.exc_info is not None
    assert logged.exc_info[2] is not None


@SQLITE
async def test_many_that_fail_alike_are_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"other":
            raise KeyError("another line")
        raise ValueError("no such account")

    await bench.send(*(f"m{number}" for number in range(10)), "other")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: len(bench.happened("dead")) == 11)
    assert len(first_failures(caplog)) == 2


def _fails(number: int) -> BaseException:
    try:
        raise [ValueError, KeyError, OSError][number % 3](number)  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - with a traceback
        return error


def test_what_was_not_logged_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    log = FailureLog("shop.on_order", lambda: now)
    history = History(operation_id="a")
    for _ in range(5):
        log.note(history, _fails(0))
    now += 61
    log.note(history, _fails(0))  # they have gone on without a break
    log.look()
    now += 61
    log.look()
    log.note(history, _fails(0))
    assert len(first_failures(caplog)) == 2
    (counted,) = [each.message for each in caplog.records if "more first attempts" in each.message]
    assert counted.startswith("5 more")


def test_the_log_remembers_a_bounded_number_of_kinds() -> None:
    log = FailureLog("shop.on_order", lambda: 0.0)
    for number in range(1000):
        log.note(History(operation_id="a"), type(f"Error{number}", (Exception,), {})())
    assert len(log._throttle._kinds) <= 64


@SQLITE
@pytest.mark.parametrize(
    ("error", "outcome"), [(Reject("no"), "dead"), (Retry("later", after=60), "postponed")]
)
async def test_instructions_are_no_failures(
    bench: Bench, caplog: pytest.LogCaptureFixture, error: Exception, outcome: str
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        raise error

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened(outcome) == ["a"])
    assert first_failures(caplog) == []


async def test_a_depends_on_that_raises_is_logged_at_the_first_message(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def depends_on(_: AbstractIncomingMessage) -> str:
        raise KeyError("tenant")

    await bench.send("a")
    async with bench.consumer(lambda message: None, depends_on=depends_on):
        await until(lambda: bench.happened("delayed") == ["a"])
        assert len(first_failures(caplog)) == 1
    assert "KeyError: 'tenant'" in caplog.text


@SQLITE
async def test_a_depends_on_that_gives_no_names_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def depends_on(_: AbstractIncomingMessage) -> Any:
        return bench.registry.get("payments")

    await bench.send("a")
    async with bench.consumer(lambda message: None, depends_on=depends_on, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    assert "what depends_on returns" in caplog.text


def in_no_lane(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "is in no lane" in record.message]


def test_a_dependency_in_no_lane_is_warned_of_when_the_consumer_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ParkingConsumer(
        "amqp://localhost",
        queue="orders",
        handler=print,
        depends_on=["cards", "stock"],
        lanes={"money": ["card", "stock"]},
    )
    (warning,) = in_no_lane(caplog)
    assert "'cards'" in warning
    assert "'card', 'stock'" in warning


@SQLITE
async def test_a_dependency_in_no_lane_is_warned_of_at_the_first_message_that_names_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.send("a", "b", "c")
    async with bench.consumer(
        lambda message: None,
        depends_on=lambda message: "payments" if message.body == b"a" else "cards",
        lanes={"payments": ["payments"]},
    ):
        await until(lambda: len(bench.happened("handled")) == 3)
    (warning,) = in_no_lane(caplog)
    assert "'cards'" in warning


def test_what_is_learnt_needs_no_lane(caplog: pytest.LogCaptureFixture) -> None:
    ParkingConsumer("amqp://localhost", queue="orders", handler=print, depends_on="cards")
    ParkingConsumer("amqp://localhost", queue="orders", handler=print)
    assert in_no_lane(caplog) == []


@pytest.mark.parametrize(
    ("listener", "named"),
    [
        (None, "listener must be .*, got None"),
        (lambda: None, "cannot be called"),
        (int, "listener must be .*, a class"),
    ],
)
def test_a_listener_that_cannot_work_is_refused_when_it_is_given(listener: Any, named: str) -> None:
    consumer = ParkingConsumer("amqp://localhost", queue="orders", handler=print)
    with pytest.raises(SettingsError, match=named):
        consumer.add_listener(listener)


def test_a_listener_that_nobody_would_await_is_refused_when_it_is_given() -> None:
    async def listener(_: object) -> None:
        pass

    consumer = ParkingConsumer("amqp://localhost", queue="orders", handler=print)
    with pytest.raises(SettingsError, match=r"listener must be .*, a coroutine function"):
        consumer.add_listener(listener)  # type: ignore[arg-type] # what is tested
