"""Lines of the log are written after unlocking, and have an error's text only where that is set."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CallError,
    CallEvent,
    CircuitBreaker,
    CircuitOpenError,
    Event,
    StateChanged,
)
from tests.support.call_errors import known
from tests.support.circuits import interrupt, open_circuit
from tests.support.logs import Log, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.testing import FakeClock

DOWN = CallError("grpc.RpcError", "UNAVAILABLE", "card 4111 1111 1111 1111")


@pytest.fixture
def log() -> Iterator[Log]:
    with read_log(logger="fusewire.breaker") as log:
        yield log


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DOWN, "card 4111 1111 1111 1111"),
        (CallError("E", message="x" * 1001), "x" * 1000),
        (ConnectionError("refused"), "refused"),
        (ConnectionError("x" * 1001), "x" * 1000),
        (ConnectionError(), None),
    ],
)
def test_its_text_is_in_the_log_only_where_that_is_set(
    clock: FakeClock, log: Log, error: Any, text: str | None
) -> None:
    for log_messages in (False, True):
        settings = BreakerSettings(failure_threshold=1, log_messages=log_messages)
        breaker = CircuitBreaker("payments", settings=settings, clock=clock)
        heard: list[Event] = []
        breaker.add_listener(heard.append, (StateChanged, CallEvent))
        breaker.acquire().failure(error=error)
        with pytest.raises(CircuitOpenError) as caught:
            breaker.acquire()
        assert known(breaker)[1] == getattr(error, "status", "")
        said = repr((heard, caught.value, vars(caught.value), caught.value.__reduce__()))
        said += str(breaker.figures()) + breaker.snapshot().to_json() + str(caught.value)
        assert "refused" not in said
        assert "4111 1111" not in said
    without, with_it = log.of("circuit.opened")
    assert "error_message" not in without
    assert with_it.get("error_message") == text
    message = log.records()[1]["message"]
    assert f"last error {with_it['error_type']}" in message
    assert (text or "; it rejects") in message


def test_its_text_is_not_kept_where_it_is_not_to_be_logged(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.acquire().failure(error=DOWN)
    assert not breaker._last_message
    breaker.acquire().failure(error=ConnectionError("refused"))
    assert not breaker._last_message


def test_an_error_is_not_asked_for_a_text_that_is_not_to_be_logged(clock: FakeClock) -> None:
    asked: list[bool] = []

    class ExpensiveError(Exception):
        def __str__(self) -> str:
            asked.append(True)
            return "all that the database has said"

    breaker = CircuitBreaker("payments", clock=clock)
    breaker.acquire().failure(error=ExpensiveError())
    assert not asked
    breaker.replace_settings(BreakerSettings(log_messages=True))
    breaker.acquire().failure(error=ExpensiveError())
    assert asked


def test_an_error_that_has_no_text_to_give_says_why(clock: FakeClock, log: Log) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    settings = BreakerSettings(failure_threshold=1, log_messages=True)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire().failure(error=BrokenError())
    (opened,) = log.of("circuit.opened")
    assert opened["error_message"] == "(its text cannot be made: RuntimeError)"


def test_lines_are_written_after_unlocking_and_before_listeners_are_called(
    breaker: CircuitBreaker,
) -> None:
    order: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with_lock = threading.Thread(target=breaker.figures)
            with_lock.start()
            with_lock.join(10)
            assert not with_lock.is_alive(), "the circuit's lock is free"
            order.append(record.getMessage().split(":")[0])

    breaker.add_listener(lambda event: order.append(type(event).__name__))
    handler = Handler()
    logger = logging.getLogger("fusewire.breaker")
    logger.addHandler(handler)
    try:
        open_circuit(breaker)
    finally:
        logger.removeHandler(handler)
    assert order == ["circuit 'payments' opened", "StateChanged"]


def test_no_listener_hears_of_lines(breaker: CircuitBreaker, log: Log) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, Event)
    open_circuit(breaker)
    assert [type(event).__name__ for event in heard if not isinstance(event, CallEvent)] == [
        "StateChanged"
    ]
    assert [record["fusewire_event"] for record in log.records()] == ["circuit.opened"]


def test_what_a_handler_raises_harms_no_call(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "opened" in record.getMessage():
                raise RuntimeError("broken filter")
            return True

    logger = logging.getLogger("fusewire.breaker")
    broken = Broken()
    logger.addFilter(broken)
    try:
        open_circuit(breaker)
    finally:
        logger.removeFilter(broken)
    assert breaker.figures().counters.opened == 1
    assert "a listener of circuit 'payments' failed on LogLine" in caplog.text


def test_a_change_in_the_midst_of_another_is_logged_when_that_ends(
    breaker: CircuitBreaker, log: Log
) -> None:
    interrupt(breaker, lambda: breaker.force_open(by="a signal handler"))
    assert log.of("circuit.forced_open")[0]["by"] == "a signal handler"


def test_each_breaker_of_a_registry_is_logged_by_its_name(clock: FakeClock, log: Log) -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1), clock=clock)
    for name in ("payments", "search"):
        registry.get(name).acquire().failure()
    assert [each["circuit"] for each in log.of("circuit.opened")] == ["payments", "search"]
