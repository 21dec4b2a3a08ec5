"""The sections of resilience4j in a Spring Boot file: circuit breakers, and what is not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._problems import Problem, Severity, shown_value
from fusewire.config._spring_keys import canonical
from fusewire.config._spring_paths import split
from fusewire.config._tree import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.config._problems import Place
    from fusewire.config._tree import Document

SECTION = "circuitbreaker"

BELOW = "indent its keys below it, or remove it"
"""The remedy for a value where a mapping should be."""

_ROOT = "resilience4j"
_OTHERS = {
    "retry": "messages are retried by consumers.QUEUE.retry, calls by gRPC or by tenacity, in code",
    "ratelimiter": "replays have consumers.QUEUE.replay.rate, calls have no such limit here",
    "bulkhead": "replays have consumers.QUEUE.replay.concurrency, calls have no such limit here",
    "threadpoolbulkhead": "a pool of threads limits calls, in code",
    "timelimiter": "a timeout is given where a call is made, and max_wait counts what it cancels",
}
_NOTHING = "nothing in Fusewire stands for it"


def other_sections(document: Document) -> Iterator[Problem]:
    """Yield a note on each section that is not read, or a warning if its name is nearly ours."""
    for name, place in _sections(document.root):
        section = canonical(name)
        if section == SECTION:
            continue
        if nearest(section, (SECTION,)):
            yield Problem(
                place,
                "a key of resilience4j",
                "circuitbreaker to be read here",
                name,
                f"did you mean {SECTION}?",
                Severity.WARNING,
            )
        else:
            yield Problem(
                place,
                f"{_ROOT}.{name} is not read",
                "circuitbreaker to be read here",
                name,
                _OTHERS.get(section, _NOTHING),
                Severity.NOTE,
            )


def without_keys(table: Table, key: str) -> Problem:
    """Return what is wrong with a section of circuit breakers that has no keys."""
    place = table.place(key)
    subject, accepted = f"{_ROOT}.{SECTION}", "a mapping with instances or configs"
    if table[key] in (None, {}):
        remedy = "add them, or remove it"
        return Problem(place, subject, accepted, "nothing", remedy, Severity.WARNING)
    return Problem(place, subject, accepted, shown_value(table[key], place), BELOW)


def _sections(root: Table) -> Iterator[tuple[str, Place]]:
    """Yield the names of sections, each with the place where it is written first."""
    seen = set()
    for key in root:
        first, *rest = split(key)
        if canonical(first) != _ROOT:
            continue
        value = root[key]
        found = (
            [(rest[0], root.key_place(key))]
            if rest
            else [(split(each)[0], value.key_place(each)) for each in value]
            if isinstance(value, Table)
            else []
        )
        for name, place in found:
            if canonical(name) not in seen:
                seen.add(canonical(name))
                yield name, place
