"""The log has each change of a circuit, once, with what a person needs to know at night."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CallError,
    CircuitBreaker,
    CircuitOpenError,
    StateChanged,
)
from tests.support.circuits import break_off, half_open_circuit, restarted
from tests.support.logs import PIPELINES, Log, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.testing import FakeClock

DOWN = CallError("grpc.RpcError", "UNAVAILABLE", "card 4111 1111 1111 1111")


@pytest.fixture
def log() -> Iterator[Log]:
    with read_log(logger="fusewire.breaker") as log:
        yield log


def lines(log: Log) -> list[tuple[str, str]]:
    return [(record["levelname"], record["message"]) for record in log.records()]


def fail(breaker: CircuitBreaker, times: int = 2) -> None:
    for _ in range(times):
        breaker.acquire().failure(error=DOWN)


def reject(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(CircuitOpenError):
            breaker.acquire()


def test_an_outage_is_told_from_its_opening_to_its_closing(
    breaker: CircuitBreaker, clock: FakeClock, log: Log
) -> None:
    fail(breaker)
    reject(breaker, 3)
    clock.advance(12.5)
    for _ in range(2):
        breaker.acquire().success()
    assert lines(log) == [
        (
            "WARNING",
            (
                "circuit 'payments' opened: 2 failures in a row, threshold 2; last error "
                "grpc.RpcError UNAVAILABLE; it rejects calls for 10 s"
            ),
        ),
        (
            "DEBUG",
            (
                "circuit 'payments' is half open: the recovery time is over; open for 12.5 s, "
                "3 calls rejected"
            ),
        ),
        (
            "INFO",
            "circuit 'payments' closed: 2 probes succeeded; open for 12.5 s, 3 calls rejected",
        ),
    ]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_same_facts_are_fields(
    breaker: CircuitBreaker, clock: FakeClock, pipeline: str
) -> None:
    with read_log(pipeline, logger="fusewire.breaker") as log:
        fail(breaker)
        reject(breaker, 3)
        clock.advance(12.5)
        for _ in range(2):
            breaker.acquire().success()
    assert log.of("circuit.opened") == [
        {
            "circuit": "payments",
            "old_state": "closed",
            "new_state": "open",
            "reason": "consecutive_failures",
            "value": 2,
            "threshold": 2,
            "error_type": "grpc.RpcError",
            "error_status": "UNAVAILABLE",
            "retry_after": 10.0,
        }
    ]
    assert log.of("circuit.half_open") == [
        {
            "circuit": "payments",
            "old_state": "open",
            "new_state": "half_open",
            "reason": "recovery_time_over",
            "seconds": 12.5,
            "rejected": 3,
        }
    ]
    assert log.of("circuit.closed") == [
        {
            "circuit": "payments",
            "old_state": "half_open",
            "new_state": "closed",
            "reason": "probes_succeeded",
            "value": 2,
            "threshold": 2,
            "seconds": 12.5,
            "rejected": 3,
        }
    ]
    assert "4111 1111" not in log.text


def test_the_seconds_of_a_short_outage_are_rounded_to_milliseconds(
    clock: FakeClock, log: Log
) -> None:
    breaker = CircuitBreaker("payments", 1, 0.12345, 1, clock=clock)
    fail(breaker, 1)
    clock.advance(0.56789)
    breaker.acquire().success()
    assert log.of("circuit.opened")[0]["retry_after"] == 0.123
    assert log.of("circuit.closed")[0]["seconds"] == 0.568


def test_a_rate_has_the_calls_that_it_was_computed_from(clock: FakeClock, log: Log) -> None:
    settings = BreakerSettings(
        failure_threshold=None, window_calls=10, minimum_calls=4, failure_rate_threshold=0.5
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.call(int)
    breaker.call(int)
    fail(breaker)
    (opened,) = log.of("circuit.opened")
    assert (opened["reason"], opened["value"], opened["calls"]) == ("failure_rate", 0.5, 4)
    assert "2 of 4 calls failed: a rate of 0.5, threshold 0.5; last" in log.records()[0]["message"]


def test_a_failed_probe_is_told_once_a_minute(
    breaker: CircuitBreaker, clock: FakeClock, log: Log
) -> None:
    fail(breaker)
    for _ in range(13):
        reject(breaker, 2)
        clock.advance(10)
        breaker.acquire().failure(error=DOWN)
    told = [each for each in lines(log) if each[0] != "DEBUG"]
    assert [level for level, _ in told] == ["WARNING", "INFO", "INFO"]
    assert told[1][1] == (
        "circuit 'payments' is still open: a probe failed; last error grpc.RpcError UNAVAILABLE; "
        "open for 60 s, 12 calls rejected; it rejects calls for 10 s"
    )
    assert [each["seconds"] for each in log.of("circuit.still_open")] == [60, 120]
    assert [each["rejected"] for each in log.of("circuit.still_open")] == [12, 24]
    assert len(log.of("circuit.half_open")) == 13
    # The next outage is news at once, and its count begins at 0.
    clock.advance(10)
    for _ in range(2):
        breaker.acquire().success()
    (closed,) = log.of("circuit.closed")
    assert (closed["seconds"], closed["rejected"]) == (140, 26)
    fail(breaker)
    reject(breaker, 1)
    clock.advance(10)
    breaker.acquire().failure()
    assert len(log.of("circuit.opened")) == 2
    assert len(log.of("circuit.still_open")) == 2
    clock.advance(50)
    breaker.acquire().failure()
    (latest,) = log.of("circuit.still_open")[2:]
    assert (latest["seconds"], latest["rejected"]) == (60, 1)
    assert "error_type" not in latest


def test_a_slow_probe_says_so(clock: FakeClock, log: Log) -> None:
    settings = BreakerSettings(
        failure_threshold=1,
        recovery_timeout=100,
        window_calls=1,
        minimum_calls=1,
        slow_call_duration=1.0,
        slow_call_rate_threshold=1.0,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    half_open_circuit(breaker, clock)
    breaker.call(clock.advance, 2)
    (slow,) = log.of("circuit.still_open")
    assert (slow["reason"], slow["value"], slow["threshold"]) == ("probe_slow", 2.0, 1.0)


@pytest.mark.parametrize(
    ("act", "level", "event", "text"),
    [
        ("force_open", "WARNING", "circuit.forced_open", "is forced open"),
        ("disable", "WARNING", "circuit.disabled", "is disabled, and admits all calls"),
        ("metrics_only", "WARNING", "circuit.metrics_only", "only counts, and admits all calls"),
    ],
)
def test_what_is_done_by_hand_has_who_and_why(  # noqa: PLR0917 - two fixtures and what is compared
    breaker: CircuitBreaker, log: Log, act: str, level: str, event: str, text: str
) -> None:
    getattr(breaker, act)(by="ana", reason="maintenance until 4 a.m.")
    getattr(breaker, act)(by="ana", reason="again, which changes nothing")
    breaker.reset(by="bo", reason="done")
    getattr(breaker, act)()
    assert [(told, message.partition("; ")[0]) for told, message in lines(log)] == [
        (level, f"circuit 'payments' {text}: by hand, by ana: maintenance until 4 a.m."),
        ("INFO", "circuit 'payments' closed: by hand, by bo: done"),
        (level, f"circuit 'payments' {text}: by hand"),
    ]
    first, second = log.of(event)
    assert (first["by"], first["note"]) == ("ana", "maintenance until 4 a.m.")
    assert first["reason"] == second["reason"] == "by_hand"
    assert not {"by", "note", "error_type", "value", "calls"} & set(second)
    (closed,) = log.of("circuit.closed")
    assert (closed["by"], closed["note"]) == ("bo", "done")


def test_a_circuit_that_was_forced_open_says_for_how_long(
    breaker: CircuitBreaker, clock: FakeClock, log: Log
) -> None:
    breaker.force_open()
    clock.advance(7200)
    reject(breaker, 2)
    breaker.automatic(by="ana")
    (closed,) = log.of("circuit.closed")
    assert (closed["seconds"], closed["rejected"], closed["by"]) == (7200, 2, "ana")
    assert lines(log)[-1][1].endswith("by hand, by ana; open for 7200 s, 2 calls rejected")


def test_a_circuit_that_was_not_open_says_nothing_of_an_outage(
    breaker: CircuitBreaker, log: Log
) -> None:
    breaker.disable()
    breaker.automatic()
    assert not {"seconds", "rejected"} & set(log.of("circuit.closed")[0])
    assert lines(log)[-1][1] == "circuit 'payments' closed: by hand"


def test_half_opening_by_hand_is_said_quietly(
    breaker: CircuitBreaker, clock: FakeClock, log: Log
) -> None:
    fail(breaker)
    clock.advance(4)
    breaker.half_open(by="a health check", reason="it serves again")
    assert lines(log)[-1] == (
        "DEBUG",
        (
            "circuit 'payments' is half open: by hand, by a health check: it serves again; "
            "open for 4 s, 0 calls rejected"
        ),
    )


def test_a_restart_in_an_outage_is_told(
    breaker: CircuitBreaker, clock: FakeClock, log: Log
) -> None:
    fail(breaker)
    reject(breaker, 3)
    clock.advance(4)
    other = restarted(breaker, clock)
    (opened,) = log.of("circuit.opened")[1:]
    assert (opened["reason"], opened["retry_after"]) == ("restored", 6)
    assert (opened["error_type"], opened["error_status"]) == ("grpc.RpcError", "UNAVAILABLE")
    reject(other, 2)
    clock.advance(6)
    for _ in range(2):
        other.acquire().success()
    (closed,) = log.of("circuit.closed")
    assert (closed["seconds"], closed["rejected"]) == (6, 2)


def test_a_circuit_that_starts_again_is_told(breaker: CircuitBreaker, log: Log) -> None:
    fail(breaker)
    break_off(breaker)
    breaker.look()
    assert log.of("circuit.closed")[0]["reason"] == "interrupted"


# What events have of an outage.


def test_events_have_what_the_log_has(breaker: CircuitBreaker, clock: FakeClock) -> None:
    heard: list[StateChanged] = []
    breaker.add_listener(heard.append, StateChanged)
    fail(breaker)
    reject(breaker, 3)
    clock.advance(12)
    breaker.acquire().failure()
    reject(breaker, 1)
    breaker.force_open(by="ana", reason="too slow")
    reject(breaker, 1)
    clock.advance(5)
    breaker.reset()
    told = [
        (each.new.value, each.retry_after, each.outage_seconds, each.rejected, each.by, each.note)
        for each in heard
    ]
    assert told == [
        ("open", 10, None, 0, "", ""),
        ("half_open", 0, 12, 3, "", ""),
        ("open", 10, 12, 3, "", ""),
        ("forced_open", 0, 12, 4, "ana", "too slow"),
        ("closed", 0, 17, 5, "", ""),
    ]
    for event in heard:
        bare = dataclasses.replace(
            event,
            error_type="",
            error_status="",
            by="",
            note="",
            retry_after=0.0,
            outage_seconds=None,
            rejected=0,
        )
        assert bare == event
