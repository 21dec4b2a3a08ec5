"""What the log says of a lane: when messages begin to wait, how many, and when they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Topology
from fusewire.parking._lane_log import LaneLog, LaneLogs
from fusewire.parking._status_watch import Reading
from fusewire.testing import FakeClock
from tests.support.logs import Log, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

STATION = Topology("orders", ("payments",)).parked("payments")
WALL = 1_000_000.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(clock: FakeClock) -> Iterator[Log]:
    with read_log() as log:
        yield log


@pytest.fixture
def lane(clock: FakeClock) -> LaneLog:
    began = clock()
    return LaneLog(STATION, clock, lambda: WALL + clock() - began)


def ready(clock: FakeClock, number: int) -> Reading:
    clock.advance(0.1)  # a count is older than what happened before it
    return Reading(number, clock())


def events(log: Log) -> list[str]:
    return [record["fusewire_event"].removeprefix("lane.") for record in log.records()]


def last(log: Log) -> dict[str, Any]:
    record = log.records()[-1]
    assert record["fusewire_queue"] == "orders"
    assert record["fusewire_lane"] == "payments"
    return record


def park(lane: LaneLog, number: int = 1) -> None:
    for _ in range(number):
        lane.parked("/pay/Charge", "circuit_open")


def test_the_first_message_of_many_is_a_warning(lane: LaneLog, log: Log) -> None:
    park(lane, 1000)
    assert events(log) == ["parking"]
    record = last(log)
    assert record["levelname"] == "WARNING"
    assert record["fusewire_circuit"] == "/pay/Charge"
    assert record["fusewire_reason"] == "circuit_open"
    assert "'/pay/Charge'" in record["message"]


def test_how_many_wait_and_how_long_is_said_once_a_minute(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    park(lane, 5)
    for _ in range(130):
        lane.look(ready(clock, 4), in_flight=1)
        clock.advance(0.9)
    assert events(log) == ["parking", "waiting", "waiting"]
    record = last(log)
    assert record["levelname"] == "INFO"
    assert (record["fusewire_count"], record["fusewire_parked"]) == (5, 5)
    assert record["fusewire_oldest_seconds"] == pytest.approx(120, abs=2)
    assert "5 messages wait in orders.parked.payments" in record["message"]


def test_a_number_that_is_not_known_is_not_said(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    park(lane)
    clock.advance(60)
    lane.look(None, in_flight=0)
    assert "fusewire_count" not in last(log)
    assert "unknown number" in last(log)["message"]


def test_the_oldest_is_the_one_that_was_taken_from_the_head(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    park(lane)
    clock.advance(60)
    lane.taken(round((WALL - 500) * 1000))
    lane.look(ready(clock, 1), in_flight=0)
    assert last(log)["fusewire_oldest_seconds"] == pytest.approx(560, abs=1)


def test_a_replay_is_said_from_its_beginning_to_its_end(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    park(lane, 41)
    clock.advance(30)
    for _ in range(40):
        clock.advance(0.25)
        lane.replayed("/pay/Charge")
    lane.died()
    lane.look(ready(clock, 0), in_flight=0)
    assert events(log) == ["parking", "replaying", "drained"]
    record = last(log)
    assert (record["fusewire_count"], record["fusewire_parked"]) == (40, 41)
    assert (record["fusewire_dead"], record["fusewire_left"]) == (1, 0)
    assert record["fusewire_seconds"] == pytest.approx(9.75)
    assert record["fusewire_rate"] == pytest.approx(40 / 9.75, abs=0.01)
    assert record["fusewire_lasted_seconds"] == pytest.approx(40)
    assert "40 messages were replayed in 9.8 s (4.1 a second)" in record["message"]


def test_the_beginning_of_a_replay_says_for_which_circuit(lane: LaneLog, log: Log) -> None:
    park(lane, 3)
    lane.replayed("/pay/Charge")
    lane.replayed("/pay/Charge")
    assert events(log) == ["parking", "replaying"]
    assert last(log)["fusewire_circuit"] == "/pay/Charge"
    assert last(log)["fusewire_parked"] == 3


@pytest.mark.parametrize(("number", "in_flight"), [(1, 0), (0, 1)])
def test_a_lane_is_not_empty_while_a_message_waits_or_is_in_flight(
    lane: LaneLog, log: Log, clock: FakeClock, number: int, in_flight: int
) -> None:
    park(lane)
    lane.look(ready(clock, number), in_flight=in_flight)
    assert events(log) == ["parking"]


def test_a_count_from_before_the_last_message_does_not_empty_a_lane(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    before = ready(clock, 0)
    park(lane)
    lane.look(before, in_flight=0)
    assert events(log) == ["parking"]


def test_what_others_replayed_is_said_too(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    park(lane, 7)
    lane.look(ready(clock, 0), in_flight=0)
    record = last(log)
    assert (record["fusewire_count"], record["fusewire_parked"]) == (0, 7)
    assert "fusewire_rate" not in record
    assert "this process has replayed none" in record["message"]


def test_a_lane_that_flaps_has_a_line_a_minute_and_its_counts_are_kept(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    for _ in range(60):  # a minute and a little
        park(lane)
        lane.replayed("/pay/Charge")
        clock.advance(0.95)
        lane.look(ready(clock, 0), in_flight=0)
    assert events(log) == ["parking", "replaying", "drained", "drained"]
    drained = log.of("lane.drained")
    assert [each["parked"] for each in drained] == [1, 58]
    assert [each["replayed"] for each in drained] == [1, 58]


def test_an_outage_that_begins_soon_after_another_is_a_warning_when_that_minute_is_over(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    park(lane)
    lane.look(ready(clock, 0), in_flight=0)
    clock.advance(10)
    park(lane, 5)
    lane.look(ready(clock, 5), in_flight=0)
    assert events(log) == ["parking", "drained"]
    clock.advance(60)
    lane.look(ready(clock, 5), in_flight=0)
    assert events(log) == ["parking", "drained", "parking"]
    assert last(log)["fusewire_parked"] == 5


def test_after_a_quiet_minute_the_next_outage_is_a_warning_at_once(
    lane: LaneLog, log: Log, clock: FakeClock
) -> None:
    park(lane)
    lane.look(ready(clock, 0), in_flight=0)
    clock.advance(61)
    park(lane)
    assert events(log) == ["parking", "drained", "parking"]


def test_what_waits_already_is_said_at_the_start(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    assert lane.wants_count
    lane.look(None, in_flight=0)
    assert lane.wants_count
    lane.look(ready(clock, 12), in_flight=0)
    assert events(log) == ["waiting"]
    assert last(log)["fusewire_count"] == 12
    lane.replayed("/pay/Charge")
    lane.look(ready(clock, 0), in_flight=0)
    assert events(log) == ["waiting", "replaying", "drained"]
    assert not lane.wants_count


def test_an_empty_lane_is_not_worth_a_line(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    lane.look(ready(clock, 0), in_flight=0)
    lane.look(ready(clock, 3), in_flight=0)  # others have parked it
    lane.end(None)
    assert log.records() == []


def test_what_is_left_is_said_at_the_end(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    park(lane, 2)
    lane.end(ready(clock, 2))
    lane.end(ready(clock, 2))
    assert events(log) == ["parking", "waiting"]
    assert last(log)["message"].startswith("when the consumer stops, 2 messages wait")


def test_a_line_names_three_circuits_of_many(lane: LaneLog, log: Log, clock: FakeClock) -> None:
    for number in range(1000):
        lane.parked(f"c{number}", "circuit_open")
    clock.advance(60)
    lane.look(None, in_flight=0)
    assert "circuit 'c0', 'c1', 'c2', the oldest" in last(log)["message"]


def test_only_lanes_with_something_to_say_are_counted(clock: FakeClock) -> None:
    logs = LaneLogs(Topology("orders", ("payments", "stock")), clock)
    for _, lane in logs:
        lane.look(ready(clock, 0), in_flight=0)
    assert logs.to_count() == []
    logs["payments"].parked("payments", "circuit_open")
    assert logs.to_count() == [STATION]
