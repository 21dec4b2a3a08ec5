"""A run of the demo that never was, for tests of what is shown of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.demo._config import Client, Plan
from fusewire.demo._course import DOWN, UP, Course
from fusewire.demo._judgement import Records
from fusewire.demo._report import make_report
from fusewire.demo._tally import Tally

if TYPE_CHECKING:
    from fusewire.demo._report import Report


class Clocked(Course):
    """A course whose time is set by hand."""

    time = 0.0

    @property
    def now(self) -> float:
        return self.time

    def at(self, time: float, process: str, what: str, **details: object) -> None:
        self.tally.note(process, {"what": what, "at": time, **details})


def outage(code: str = "UNAVAILABLE: down", rate: int = 5) -> Clocked:
    """Return the first 20 s of a run, with an outage from 8 s on; errors say `code`."""
    course = Clocked(Plan(), Tally())
    for number in range(20 * rate):
        begin = number / rate
        for client in Client:
            reference = f"{client.prefix}{number}"
            plain = client is not Client.FUSEWIRE
            result = "ok" if begin < 8 else "error" if plain else "pending"
            course.at(begin, "client", "asked", client=client, reference=reference)
            course.at(
                begin, "client", "answered", client=client, reference=reference, begin=begin,
                took=0.05, result=result, operation=reference,
                code=code if result == "error" else "",
            )  # fmt: skip
        if begin >= 8:
            course.at(
                begin, "client", "message", outcome="parked", operation=f"payment-{number}",
                reason="",
            )  # fmt: skip
    course.at(8.0, "client", "circuit", state="open", why="")
    course.at(15.0, "client", "circuit", state="half_open", why="")
    course.time = 8.0
    course.note_server(DOWN)
    course.time = 20.0
    return course


def recovery(course: Clocked) -> Report:
    """Go on with such a run until all is made, and return its report."""
    course.note_server(UP)
    course.at(20.5, "client", "circuit", state="closed", why="")
    for operation in sorted(course.tally.payments.waiting):
        course.at(21.0, "client", "message", outcome="replayed", operation=operation, reason="")
    course.time = 28.0
    course.step("the load has ended, and all is done")
    charges = [
        (reference, reference)
        for made in course.tally.requests.values()
        for reference, answer in made.answers.items()
        if answer.result != "error"
    ]
    records = Records((*charges, ("again", f"{Client.RETRYING.prefix}0")))
    return make_report(course.tally, records, broker="sqlite", outage=(8.0, 20.0))
