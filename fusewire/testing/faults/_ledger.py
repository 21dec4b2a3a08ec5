"""The fate of every message of a run: sorted, none left out, none counted twice.

Modelled on the queue checker of Jepsen, which sorts what was acknowledged into lost, recovered,
unexpected and duplicated (https://github.com/jepsen-io/jepsen, ``checker/total-queue``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from fusewire.testing.faults._journal import doubts, read_journal

if TYPE_CHECKING:
    from pathlib import Path


class Place(StrEnum):
    """Where a message may be at the end of a run."""

    DEAD = "dead"
    PARKED = "parked"
    DELAYED = "delayed"
    SOURCE = "in source"


_BAD_NEWS = ("lost", "unexpected", "duplicated_unexplained", "repeated_effects")


@dataclass(frozen=True, slots=True)
class Account:
    """The fates of the messages of a run, as sorted operation ids.

    Every operation that was published is in exactly one of the first eight. The three that follow
    say more of some of them.

    Attributes:
        handled: it took effect.
        dead: no effect, and it waits for a person.
        parked: no effect, and it waits for its dependency.
        delayed: no effect, and it comes back after a while.
        in_source: no effect, and it waits in its source queue.
        removed: somebody deleted it, with its queue, and it is nowhere.
        lost: its publish was confirmed, and it is nowhere.
        never_sent: its publish was not confirmed, and it is nowhere: it never came to the broker.
        unexpected: seen somewhere, and nobody published it.
        duplicated_explained: seen more than once, and an ambiguous operation says why.
        duplicated_unexplained: seen more than once, and nothing says why.
        repeated_effects: took effect more than once.
        sightings: of each operation that is bad news, in words: its effects, repeats, places and
            doubts.
    """

    handled: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    parked: tuple[str, ...] = ()
    delayed: tuple[str, ...] = ()
    in_source: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    never_sent: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    duplicated_explained: tuple[str, ...] = ()
    duplicated_unexplained: tuple[str, ...] = ()
    repeated_effects: tuple[str, ...] = ()
    sightings: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def sound(self) -> bool:
        """Whether nothing is lost, unexpected, duplicated without a reason, or done twice."""
        return not (
            self.lost or self.unexpected or self.duplicated_unexplained or self.repeated_effects
        )

    def __str__(self) -> str:
        """Return the number of each kind; for bad news also which, and where they were seen."""
        parts = []
        for kind in fields(self):
            if kind.name == "sightings":
                continue
            operations: tuple[str, ...] = getattr(self, kind.name)
            if operations or kind.name in _BAD_NEWS:
                which = ""
                if operations and kind.name in _BAD_NEWS:
                    which = f" ({'; '.join(map(self._sighting, operations))})"
                parts.append(f"{kind.name.replace('_', ' ')} {len(operations)}{which}")
        return ", ".join(parts)

    def _sighting(self, operation: str) -> str:
        seen = self.sightings.get(operation)
        return operation if seen is None else f"{operation}: {seen}"


class LossLedger:
    """Collects what was published, what was seen and what is in doubt, and sorts it at the end.

    The called service says what took effect, and a client outside the consumer what the queues
    hold: see :func:`count_queues`.
    """

    def __init__(self) -> None:
        self._published: set[str] = set()
        self._perhaps: set[str] = set()
        self._effects: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._found: defaultdict[str, Counter[Place]] = defaultdict(Counter)
        self._doubts: defaultdict[str, list[str]] = defaultdict(list)
        self._removed: set[str] = set()

    def published(self, operation_id: str, *, confirmed: bool = True) -> None:
        """Note that an operation was published.

        Args:
            operation_id: its identity.
            confirmed: whether the broker confirmed it. One that was not may be nowhere.
        """
        (self._published if confirmed else self._perhaps).add(operation_id)

    def effect(self, operation_id: str, count: int = 1) -> None:
        """Note that an operation took effect at the called service, `count` times."""
        self._effects[operation_id] += count

    def repeat(self, operation_id: str, count: int = 1) -> None:
        """Note that the called service got an operation again and recognized it."""
        self._repeats[operation_id] += count

    def found(self, place: Place, operation_id: str, count: int = 1) -> None:
        """Note that at the end `count` copies of an operation are in a queue."""
        self._found[operation_id][place] += count

    def removed(self, operation_id: str) -> None:
        """Note that somebody other than the consumer deleted the queue of an operation."""
        self._removed.add(operation_id)

    def read(self, journal: Path) -> None:
        """Note everything that a worker's journal leaves in doubt; see :class:`Journal`."""
        for operation_id, why in doubts(entry for entry, _ in read_journal(journal)).items():
            self.ambiguous(operation_id, why)

    def ambiguous(self, operation_id: str, why: str) -> None:
        """Note that an operation may have been done twice: a kill, an unconfirmed move.

        Args:
            operation_id: its identity.
            why: in a few words, for the reader of :meth:`doubts`.
        """
        self._doubts[operation_id].append(why)

    def doubts(self, operation_id: str) -> tuple[str, ...]:
        """Return what made an operation ambiguous."""
        return tuple(self._doubts.get(operation_id, ()))

    def sort(self) -> Account:
        """Sort everything that is known."""
        rest: defaultdict[str, set[str]] = defaultdict(set)
        known = self._published | self._perhaps
        found = {operation for operation, places in self._found.items() if places.total() > 0}
        seen = set(+self._effects) | set(+self._repeats) | found
        for operation in known | seen:
            rest[self._kind(operation, known)].add(operation)
            times = self._effects[operation] + self._repeats[operation]
            if times + self._found.get(operation, Counter()).total() > 1:
                explained = "explained" if operation in self._doubts else "unexplained"
                rest[f"duplicated_{explained}"].add(operation)
            if self._effects[operation] > 1:
                rest["repeated_effects"].add(operation)
        bad_news = {operation for kind in _BAD_NEWS for operation in rest[kind]}
        return Account(
            **{kind: tuple(sorted(operations)) for kind, operations in rest.items()},
            sightings={operation: self._seen(operation) for operation in sorted(bad_news)},
        )

    def _seen(self, operation: str) -> str:
        """Return where an operation was seen, and what makes it ambiguous."""
        places = self._found.get(operation, Counter())
        parts = [
            _counted(self._effects[operation], "effect"),
            _counted(self._repeats[operation], "repeat"),
            *(f"{times} {place}" for place, times in places.items() if times),
            "; ".join(self.doubts(operation)) or "no doubt",
        ]
        if operation in self._removed:
            parts.append("its queue was deleted")
        return ", ".join(parts)

    def _kind(self, operation: str, known: set[str]) -> str:
        if operation not in known:
            return "unexpected"
        # A repeat without an effect is one whose effect was before the run.
        if self._effects[operation] or self._repeats[operation]:
            return "handled"
        places = self._found.get(operation, Counter())
        for place in Place:
            if places[place]:
                return place.value.replace(" ", "_")
        if operation in self._removed:
            return "removed"
        return "lost" if operation in self._published else "never_sent"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
