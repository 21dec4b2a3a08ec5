"""Which breaker a registry with a limit lets go, found by a few looks, however many it has."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOKS = 8
"""Candidates that are looked at for one that goes."""

WORTHS = range(4)
"""What a breaker may be worth: 0 is nothing, the last is most."""


class Candidates:
    """Names of breakers, by what they were worth when they were looked at last.

    What is asked for counts as worth nothing until it is looked at, and comes last among those. So
    a look finds out what a name is worth, and what is worth something is not looked at again while
    there are others.
    """

    def __init__(self) -> None:
        self._asked = count()
        # Names, and when they were asked for last.
        self._by_worth: tuple[dict[str, int], ...] = tuple({} for _ in WORTHS)

    def add(self, name: str) -> None:
        """Put a name last among those that are worth nothing."""
        self.discard(name)
        self._by_worth[0][name] = next(self._asked)

    def discard(self, name: str) -> None:
        """Take a name out; one that is not there is no error."""
        for names in self._by_worth:
            names.pop(name, None)

    def first(self) -> dict[str, int]:
        """Return the names to look at, and when they were asked for."""
        found: dict[str, int] = {}
        for names in self._by_worth:
            # Copied in one step: a thread that interrupts itself adds without a lock.
            found.update(tuple(islice(names.items(), LOOKS - len(found))))
        return found

    def choose(self, names: Mapping[str, int], worth: Mapping[str, int]) -> str:
        """Choose the name to let go, of those that were looked at; the others are put in order.

        Args:
            names: what :meth:`first` returned; there is at least one.
            worth: what each is worth now. One that is missing is gone already.
        """
        chosen = min(names, key=lambda name: (worth.get(name, 0), names[name]))
        for name, asked in names.items():
            if name != chosen and worth.get(name):
                self.discard(name)
                self._by_worth[worth[name]][name] = asked
        return chosen
