"""Calls that are not parked, or not answered, are a line and then numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.errors import CircuitOpenError, FusewireError
from fusewire.forwarding import ParkedCalls
from fusewire.forwarding._park_log import ParkLog
from fusewire.interceptors import CallInfo, FallbackDeclined
from fusewire.parking import _status_watch as watch_module
from fusewire.testing import FakeClock
from tests.forwarding.conftest import CHARGE
from tests.support.logs import Log, ours, read_log
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "4111 1111"  # noqa: S105 - a card number, which no line may show
REJECTED: Any = CircuitOpenError("payments", "open", 1.0)


def call(key: str, *metadata: tuple[str, str]) -> CallInfo:
    return CallInfo(CHARGE, "payments", (("idempotency-key", key), *metadata), 2.0)


def refused(number: int) -> FusewireError:
    with pytest.raises(FusewireError) as caught:
        raise FusewireError(f"full {number}")
    return caught.value


def logged(lines: Log, event: str, level: str = "ERROR") -> list[dict[str, Any]]:
    """Return the records of an event at a level: our fields, and the text."""
    return [
        {**ours(each), "message": each["message"]}
        for each in lines.records()
        if each.get("fusewire_event") == event and each["levelname"] == level
    ]


def test_calls_that_cannot_be_parked_are_a_line_and_a_count() -> None:
    clock = FakeClock()
    log = ParkLog(clock)
    with read_log(logger="fusewire.forwarding") as lines:
        for number in range(5):
            log.not_parked(f"op-{number}", "no", refused(number))
        clock.advance(30)
        log.look()
        clock.advance(30)
        log.look()
        log.look()
    errors = logged(lines, "call.not_parked")
    assert [(each.get("operation_id"), each["count"]) for each in errors] == [
        ("op-0", 1),
        (None, 4),
    ]
    assert errors[0]["reason"] == "no"
    assert {each["error_type"] for each in errors} == {"fusewire.errors.FusewireError"}
    quiet = logged(lines, "call.not_parked", "DEBUG")
    assert [each["operation_id"] for each in quiet] == ["op-1", "op-2", "op-3", "op-4"]


def test_a_store_that_nobody_looks_after_says_the_count_with_the_next_one() -> None:
    clock = FakeClock()
    log = ParkLog(clock)
    with read_log(logger="fusewire.forwarding") as lines:
        for number in range(3):
            log.not_parked(f"op-{number}", "unknown", refused(number))
        clock.advance(60)
        log.not_parked("op-3", "unknown", refused(3))
    first, last = logged(lines, "call.not_parked")
    assert (first["count"], last["count"]) == (1, 3)
    assert "2 more like it were not logged" in last["message"]


def test_what_was_only_counted_is_said_at_the_end() -> None:
    log = ParkLog(FakeClock())
    with read_log(logger="fusewire.forwarding") as lines:
        for number in range(3):
            log.not_parked(f"op-{number}", "no", refused(number))
            log.unanswered(f"op-{number}", refused(number))
        log.end()
        log.end()
    assert [each["count"] for each in logged(lines, "call.not_parked")] == [1, 2]
    assert [each["count"] for each in logged(lines, "call.unanswered")] == [1, 2]


async def test_a_store_that_is_left_says_what_was_only_counted(tmp_path: Path) -> None:
    with read_log(logger="fusewire.forwarding") as lines:
        async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue="charges") as calls:
            for number in range(3):
                calls._log.not_parked(f"op-{number}", "no", refused(number))
    assert [each["count"] for each in logged(lines, "call.not_parked")] == [1, 2]


def test_replies_that_fail_are_one_traceback_and_a_count() -> None:
    clock = FakeClock()
    log = ParkLog(clock)
    with read_log(logger="fusewire.forwarding") as lines:
        for number in range(3):
            log.unanswered(f"op-{number}", refused(number))
        clock.advance(60)
        log.look()
    first, count = logged(lines, "call.unanswered")
    assert (first["operation_id"], count["count"]) == ("op-0", 2)
    assert "test_park_log.py:" in count["message"]
    assert lines.text.count("Traceback") == 1


class Unserializable:
    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        raise ValueError(SECRET)


@pytest.mark.parametrize(
    ("info", "request_message", "why"),
    [
        (call("a"), Unserializable(), "its request cannot be serialized: ValueError"),
        (call("a"), bytes(4 * 1024 * 1024 + 1), "must have at most 4194304 bytes, got 4194305"),
        (call("a", ("x-tenant", "\n")), b"", "its metadata cannot be sent"),
        (call("a"), b"", "is not entered"),
    ],
)
async def test_why_a_call_is_not_parked_is_logged(
    tmp_path: Path, info: CallInfo, request_message: Any, why: str
) -> None:
    calls = ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue="charges")
    fallback = calls.park(reply=lambda _request, _receipt: b"", idempotent=True)
    with read_log() as lines, pytest.raises(FallbackDeclined, match="operation a is not parked"):
        await fallback.reply(info, request_message, REJECTED)
    (line,) = logged(lines, "call.not_parked")
    assert why in line["message"]
    assert line["operation_id"] == "a"
    assert SECRET not in lines.text


async def test_a_store_looks_after_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue="charges") as calls:
        looked: list[ParkLog] = []

        def look(log: ParkLog) -> None:
            looked.append(log)

        monkeypatch.setattr(ParkLog, "look", look)
        await until(lambda: calls._log in looked)
