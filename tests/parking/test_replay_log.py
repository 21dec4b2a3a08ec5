"""Why a replay is slow, in the log."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from fusewire.brokers import Topology
from fusewire.parking import ReplayFailure, ReplayFigures
from fusewire.parking._replay_log import SlowReplayLog
from fusewire.testing import FakeClock

WELL = ReplayFigures(
    window=2.5,
    gain=1.0,
    slow_share=0.0,
    reference=0.022,
    taking_part=True,
    replicas=8,
    cuts={ReplayFailure.REFUSED: 0, ReplayFailure.LATE: 0},
    in_flight=2,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(clock: FakeClock) -> SlowReplayLog:
    return SlowReplayLog(Topology("orders", ("payments",)).parked("payments"), clock)


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fusewire.parking")


def test_a_replay_that_is_well_is_not_worth_a_line(
    log: SlowReplayLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.look({"payments": WELL})
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"slow_share": 0.5}, "yielding to live traffic"),
        ({"cuts": {ReplayFailure.REFUSED: 2}}, "refused by the server"),
        ({"cuts": {ReplayFailure.LATE: 2}}, "the server answers too late"),
        ({"taking_part": False}, "waiting for its turn to take part"),
    ],
)
def test_the_reason_is_said_with_the_figures(
    log: SlowReplayLog, caplog: pytest.LogCaptureFixture, change: dict[str, object], why: str
) -> None:
    log.look({"payments": dataclasses.replace(WELL, **change)})  # type: ignore[arg-type]
    (line,) = caplog.messages
    assert why in line
    for figure in ("orders.parked.payments", "window 2.5", "gain 100%", "8 replicas", "22 ms"):
        assert figure in line


def test_it_is_said_once_a_minute_at_most(
    log: SlowReplayLog, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    slow = {"payments": dataclasses.replace(WELL, slow_share=0.5)}
    for _ in range(13):
        log.look(slow)
        clock.advance(10)
    assert len(caplog.messages) == 3  # at 0, 60 and 120 s


def test_refusals_of_long_ago_are_no_reason(
    log: SlowReplayLog, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    refused = {"payments": dataclasses.replace(WELL, cuts={ReplayFailure.REFUSED: 2})}
    log.look(refused)
    clock.advance(100)
    log.look(refused)
    assert len(caplog.messages) == 1
