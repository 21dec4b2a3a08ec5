"""The recovery run: its figures follow from what the processes wrote, and it runs as a whole."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import recovery, recovery_run
from benchmarks.recovery_backlog import Look
from benchmarks.recovery_curves import picture
from benchmarks.recovery_figures import curves, figures
from benchmarks.recovery_record import Record, Tail
from benchmarks.recovery_report import Result, misses, table
from benchmarks.recovery_run import Progress, Recorded
from benchmarks.recovery_stage import Case, Code, Load, ProcessEndedError, Stage
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rabbitmq import RabbitMQ

LOAD = Load(capacity=30, live_share=1 / 3, limit=10, messages=40)  # ideally drained in 2 s
CASE = Case("refuses", 2, Code("replica"))


def sample(at: float, queued: int, done: int, refused: int = 0) -> dict[str, Any]:
    calls = {
        what: {"live": 0, "replay": count}
        for what, count in {"done": done, "refused": refused, "abandoned": 0}.items()
    }
    return {"what": "sample", "at": at, "queued": queued, "calls": calls, "late": 0.001}


def call(at: float, took: float, code: str = "OK") -> dict[str, Any]:
    return {"what": "call", "at": at, "took": took, "code": code}


def settled(at: float, number: int, outcome: str = "replayed") -> dict[str, Any]:
    return {"what": "settled", "at": at, "id": f"parked-{number}", "outcome": outcome}


def a_run() -> Recorded:
    """Record a run of 4 s, with what comes before and after it."""
    first = [settled(100 + number / 10, number) for number in range(38)]
    return Recorded(
        CASE,
        server=[
            sample(99.0, queued=30, done=0),
            sample(101.0, queued=4, done=10),
            sample(103.0, queued=15, done=38, refused=3),
            sample(105.0, queued=30, done=40, refused=9),
        ],
        live_before=[call(10, 5.0), call(50, 0.010), call(51, 0.030)],
        live_during=[
            call(99, 7.0),
            call(101, 0.020),
            call(102, 0.001, "RESOURCE_EXHAUSTED"),
            call(103, 2.0, "DEADLINE_EXCEEDED"),
            call(103, 0.0, "REJECTED"),
            call(105, 7.0),
        ],
        replicas={
            "replica-0": [
                *first,
                {"what": "circuit", "at": 90.0, "state": "open"},
                {"what": "circuit", "at": 102.0, "state": "open"},
                {"what": "circuit", "at": 103.0, "state": "half_open"},
            ],
            "replica-1": [settled(103.9, 38, "parked"), settled(104, 38), settled(104, 39, "dead")],
        },
        measured_from=40.0,
        killed=60.0,
        back=95.0,
        began=100.0,
        ended=104.0,
    )


def test_the_figures_are_those_of_the_drain() -> None:
    found = figures(a_run(), LOAD)
    assert found.drain == pytest.approx(2.0)
    assert found.drain_95 == pytest.approx(1.85)
    assert found.queued == 1.5
    assert (found.p50_before, found.p99_before) == (0.030, 0.030)
    assert (found.p50, found.p99) == (2.0, 2.0)
    assert (found.live_calls, found.live_failed) == (4, 0.75)
    assert found.replays_refused == 3
    assert (found.reopened, found.reopened_most) == (0.5, 1)
    assert found.dead == 1


class Playing:
    """A stage of which somebody says what its replicas have written, and which of them run."""

    def __init__(self) -> None:
        self.new: dict[str, list[dict[str, Any]]] = {}
        self.running = {"a", "b"}

    def check(self) -> None: ...

    def look(self) -> dict[str, list[dict[str, Any]]]:
        new, self.new = self.new, {}
        return new

    def runs(self, name: str) -> bool:
        return name in self.running


def test_what_a_killed_replica_had_answered_is_not_waited_for() -> None:
    stage: Any = Playing()
    progress = Progress(stage)
    progress.expect(["parked-1", "parked-2", "parked-3"])
    made = [{**call(1.0, 0.1), "id": f"parked-{number}"} for number in (1, 2)]
    stage.new = {"a": [*made, settled(1.2, 1)], "b": [{**made[0], "id": "parked-3"}]}
    assert not progress.all_ended()
    assert progress.left() == {"parked-2", "parked-3"}
    stage.running = {"b"}
    assert progress.left() == {"parked-3"}
    stage.new = {"b": [settled(1.3, 3, "delayed")]}
    assert not progress.all_ended()
    stage.new = {"b": [settled(1.4, 3)]}
    assert progress.all_ended()


def test_what_misses_its_target_is_named() -> None:
    poor = figures(a_run(), LOAD)
    fine = replace(
        poor, drain=1.0, queued=0.5, live_failed=0.0, replays_refused=0, reopened=0.0, p99=0.1
    )
    single = Case("refuses", 2, Code("cluster", scope="cluster"))
    shape = curves(a_run())
    beside = Result(single, fine, shape)
    assert misses([Result(CASE, fine, shape), beside], "replica") == []
    named = " ".join(misses([Result(CASE, poor, shape), beside], "replica"))
    for what in ("drain 2.00", "queued 1.50", "75.00%", "3 replays", "0.50 times", "p99 is 20.00"):
        assert what in named
    busy = Result(single, replace(fine, cpu_server=0.6), shape)
    assert "cpu_server is 0.60" in " ".join(misses([busy], "replica"))


def test_the_picture_has_a_line_for_each_curve() -> None:
    shape = curves(a_run())
    svg = picture("two & more", {"replica": shape, "former": shape}, limit=10, spare=20)
    root = ET.fromstring(svg)  # noqa: S314 - our own
    drawn = [path for path in root.iter() if path.get("stroke-width") == "1.5" and path.get("fill")]
    assert len(drawn) == 10
    assert "two &amp; more" in svg


def test_a_line_of_the_picture_is_broken_where_nothing_was_answered() -> None:
    shape = replace(curves(a_run()), p50=[(0, 0.1), (2, 0.1), (10, 0.1)])
    root = ET.fromstring(picture("", {"replica": shape}, limit=10, spare=20))  # noqa: S314 - our own
    lines = [path.get("d", "") for path in root.iter() if path.get("stroke-width") == "1.5"]
    assert [(line.count("M"), line.count("L")) for line in lines if line.count("M") > 1] == [(2, 1)]


def test_what_a_replica_without_a_subscription_holds_is_hoarded() -> None:
    look = Look(0.0, 10, 8, held={"a": 5, "b": 3}, subscribed={"a": 1, "b": 0}, prefetch={"a": 8})
    assert look.hoarded == 3


def test_a_line_is_read_once_and_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    tail = Tail(path)
    assert tail.lines() == []
    record = Record(path)
    record.write("ready", at=1.0)
    with path.open("ab") as file:
        file.write(b'{"what":')
    assert tail.lines() == [{"what": "ready", "at": 1.0}]
    with path.open("ab") as file:
        file.write(b'"rest","at":2}\n')
    assert tail.lines() == [{"what": "rest", "at": 2}]
    assert tail.lines() == []


def test_a_small_run_parks_replays_and_writes_what_it_found(
    rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_run, "KNOWN_CALLS", 2)
    recovery.main(
        [
            *("--address", rabbitmq.url, "--output", str(tmp_path), "--codes", "replica"),
            *("--replicas", "2", "--servers", "slows", "--runs", "1"),
            *("--messages", "100", "--before", "0.5", "--open-time", "4", "--drain-limit", "30"),
        ]
    )
    [found] = json.loads((tmp_path / "recovery-run.json").read_text())["runs"]
    assert found["figures"]["unsettled"] == 0
    assert found["figures"]["dead"] == 0
    assert found["figures"]["p50_before"] > 0
    assert max(done for _, done in found["curves"]["replayed"]) > 0
    rows = (tmp_path / "recovery-run.md").read_text().splitlines()
    assert re.match(r"\| slows down \| 2 \| replica \| 1 \| \d", rows[-1])
    assert (tmp_path / "recovery-run-slows-2.svg").exists()


def test_a_run_one_of_whose_processes_ends_has_no_figures(tmp_path: Path) -> None:
    with Stage(tmp_path, LOAD, CASE) as stage:
        stage.start_live("live")  # without a server it waits
        stage.check()
        stage.path("live").with_suffix(".log").write_text("out of memory")
        stage.kill("live")
        with pytest.raises(ProcessEndedError, match="live has ended: out of memory"):
            until_sync(stage.check, limit=10)


def test_an_unknown_kind_of_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        recovery.main(["--servers", "slow"])
    assert "must be among refuses, slows, got slow" in capsys.readouterr().err


def test_the_table_has_a_row_for_each_cell() -> None:
    one = Result(CASE, figures(a_run(), LOAD), curves(a_run()))
    other = replace(one, case=replace(CASE, replicas=8))
    assert len(table([one, other, one]).splitlines()) == 4
