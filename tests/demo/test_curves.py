"""What curves show: counts, durations and backlogs by time; and the states beside them."""

from __future__ import annotations

import pytest

from fusewire.demo._config import Client, Plan
from fusewire.demo._course import DOWN, UP, Course, Stretch
from fusewire.demo._curves import STEP, Curves
from fusewire.demo._figures import Latencies, milliseconds, percentile
from fusewire.demo._tally import Tally

FUSEWIRE = Client.FUSEWIRE


def test_a_payment_counts_in_the_step_in_which_it_was_asked_for() -> None:
    curves = Curves()
    for begin, result in ((0.05, "ok"), (0.15, "ok"), (1.95, "pending")):
        curves.note_answer(FUSEWIRE, begin, 0.5, result)
    step, points = curves.points(2.0, 4)
    assert step == pytest.approx(0.5)
    assert [point.at for point in points] == pytest.approx([0, 0.5, 1.0, 1.5])
    assert [dict(point.answers[FUSEWIRE]) for point in points] == [
        {"ok": 2}, {}, {}, {"pending": 1},
    ]  # fmt: skip


def test_clients_are_counted_apart() -> None:
    curves = Curves()
    curves.note_answer(FUSEWIRE, 0.0, 0.5, "ok")
    curves.note_answer(Client.BARE, 0.0, 0.1, "error")
    (point,) = curves.points(STEP, 10)[1]
    assert {client: dict(counts) for client, counts in point.answers.items()} == {
        FUSEWIRE: {"ok": 1},
        Client.BARE: {"error": 1},
    }
    assert point.took == {FUSEWIRE: (0.5, 0.5), Client.BARE: (0.1, 0.1)}


def test_a_backlog_stays_until_another_is_noted() -> None:
    curves = Curves()
    curves.note_waiting("payments", 0.55, 7)
    curves.note_waiting("payments", 0.58, 9)
    curves.note_waiting("payments", 1.55, 0)
    curves.note_waiting("orders", 1.0, 2)
    points = curves.points(2.0, 4)[1]
    assert [point.waiting for point in points] == [
        {},
        {"payments": 9},
        {"payments": 9, "orders": 2},
        {"payments": 0, "orders": 2},
    ]


@pytest.mark.parametrize("end", [0.0, 0.05, 1.0, 34.5, 7200.0])
def test_there_are_never_more_points_than_asked_for(end: float) -> None:
    step, points = Curves().points(end, 60)
    assert len(points) <= 60
    assert len(points) * step >= end


def test_recent_latencies_forget_what_is_older() -> None:
    curves = Curves()
    curves.note_answer(FUSEWIRE, 1.0, 9.0, "ok")
    curves.note_answer(FUSEWIRE, 7.0, 0.02, "ok")
    assert curves.recent(FUSEWIRE, 8.0, 5.0) == Latencies(20.0, 20.0)
    assert curves.recent(Client.BARE, 8.0, 5.0) == Latencies(None, None)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0, 2.0], 0.0, 1.0)],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], share: float, expected: float | None
) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("value", "words"), [(None, "-"), (3.72, "3.7 ms"), (99.94, "99.9 ms"), (1006.4, "1,006 ms")]
)
def test_durations_are_as_exact_as_people_read_them(value: float | None, words: str) -> None:
    assert milliseconds(value) == words


@pytest.fixture
def course() -> Course:
    return Course(Plan(), Tally())


def test_a_circuits_states_follow_each_other_without_gaps(course: Course) -> None:
    for at, state in ((8.0, "open"), (10.0, "half_open"), (11.0, "open"), (22.0, "closed")):
        line = {"what": "circuit", "at": at, "state": state, "why": ""}
        course.tally.note("client", line)
    assert course.circuit("client", 30.0) == [
        Stretch(0.0, 8.0, "closed"),
        Stretch(8.0, 10.0, "open"),
        Stretch(10.0, 11.0, "half_open"),
        Stretch(11.0, 22.0, "open"),
        Stretch(22.0, 30.0, "closed"),
    ]
    assert course.circuit("orders", 30.0) == [Stretch(0.0, 30.0, "closed")]


def test_the_server_is_up_until_something_else_is_noted(course: Course) -> None:
    course.begin()
    assert course.server_state == UP
    course.note_server(DOWN)
    (up, down) = course.server(30.0)
    assert (up.begin, up.state, up.end) == (0.0, UP, down.begin)
    assert (down.end, down.state) == (30.0, DOWN)


def test_the_timeline_is_in_order_and_names_what_turned(course: Course) -> None:
    note = course.tally.note
    note("client", {"what": "circuit", "at": 8.0, "state": "open", "why": ""})
    note("client", {"what": "circuit", "at": 10.0, "state": "half_open", "why": ""})
    for at, outcome, operation in (
        (8.1, "parked", "op-1"),
        (8.2, "parked", "op-2"),
        (10.1, "replayed", "op-1"),
        (10.3, "replayed", "op-2"),
    ):
        line = {"what": "message", "at": at, "outcome": outcome, "operation": operation}
        note("client", {**line, "reason": ""})
    note("client", {"what": "circuit", "at": 10.2, "state": "closed", "why": ""})
    course.step("the load begins")
    assert course.timeline() == [
        (0.0, "the load begins"),
        (8.0, "payments: the circuit opens"),
        (8.1, "payments: the first is parked"),
        (10.2, "payments: the circuit is closed again"),
        (10.3, "payments: the last parked one is made"),
    ]


def test_the_clock_stands_still_when_the_run_has_ended(course: Course) -> None:
    course.begin()
    course.stop()
    assert course.now == course.now == course.expected_end < 1.0
