"""What is seen while the demo runs: curves, states in words, and lines without a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from fusewire.demo._course import DOWN, UP, Course
from fusewire.demo._picture import draw
from fusewire.demo._view import showing
from tests.demo.made_up_run import Clocked, outage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def course() -> Clocked:
    return outage()


def drawn(course: Course, width: int) -> dict[str, str]:
    """Return the lines of a picture by their labels."""
    lines = draw(course, width).plain.splitlines()
    return {line[:17].strip(): line[17:] for line in lines}


@pytest.mark.parametrize("width", [20, 80, 100, 400])
def test_the_picture_is_no_wider_than_the_terminal(course: Clocked, width: int) -> None:
    assert max(map(len, draw(course, max(width, 28)).plain.splitlines())) <= max(width, 28)


def test_states_stand_in_words_over_the_time_that_they_lasted(course: Clocked) -> None:
    lines = drawn(course, 100)
    assert "up" in lines["server"]
    assert "down" in lines["server"]
    assert lines["circuit: payments"].split() == ["closed", "open", "half", "open"]
    assert lines["circuit: orders"].split() == ["closed"]


def test_the_backlog_rises_and_its_greatest_height_is_named(course: Clocked) -> None:
    lines = drawn(course, 100)
    assert "most: 60" in lines
    lowest = lines["▒ orders"]
    began = lowest.index("▁") if "▁" in lowest else len(lowest) - len(lowest.lstrip())
    assert lowest[:began].strip() == ""
    assert lowest.rstrip().endswith("█")


def test_errors_of_the_clients_without_fusewire_are_counted(course: Clocked) -> None:
    lines = drawn(course, 100)
    assert "Bare client" in lines
    assert "x 60 errors" in lines


def test_however_short_the_server_was_down_a_column_shows_it(course: Clocked) -> None:
    course.time = 20.0
    course.note_server(UP)
    course.time = 25.0
    course.note_server(DOWN)
    course.time = 25.01
    course.note_server(UP)
    course.time = 30.0
    (server,) = (line for line in draw(course, 100).split("\n") if line.plain.startswith("server "))
    assert [span.style for span in server.spans].count("white on red") == 2


@pytest.fixture
def terminal() -> Iterator[tuple[Console, io.StringIO]]:
    shown = io.StringIO()
    yield (
        Console(file=shown, force_terminal=True, width=100, height=40, legacy_windows=False),
        shown,
    )
    shown.close()


def test_a_terminal_shows_the_states_in_words(
    course: Clocked, terminal: tuple[Console, io.StringIO]
) -> None:
    console, shown = terminal
    console._environ = {"TERM": "xterm", "LANG": "C.UTF-8"}
    with showing(console) as display:
        display.say(8.0, "the server is killed")
        display.show(course)
    text = shown.getvalue()
    for words in ("DOWN", "HALF OPEN", "the server is killed", "waiting"):
        assert words in text


def test_without_a_terminal_there_are_lines(course: Clocked) -> None:
    shown = io.StringIO()
    with showing(Console(file=shown, width=80)) as display:
        display.say(8.0, "the server is killed")
        display.show(course)
        display.show(course)  # too soon for another line
    killed, figures = shown.getvalue().splitlines()
    assert killed == "   8.0 s  the server is killed"
    assert "server DOWN | payments: circuit HALF OPEN, asked 100, parked 60, waiting 60" in figures
    assert "errors without Fusewire: Bare client 60, gRPC's retries 60" in figures


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_block_characters_gets_lines(course: Clocked, encoding: str) -> None:
    raw = io.BytesIO()
    with (
        io.TextIOWrapper(raw, encoding=encoding) as file,
        showing(Console(file=file, force_terminal=True, width=100)) as display,
    ):
        display.show(course)
        file.flush()
        assert "circuit HALF OPEN" in raw.getvalue().decode(encoding)
