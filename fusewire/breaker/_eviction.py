"""Which breaker a full registry removes: it looks at a few, however many it has."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOKS = 8
"""Candidates that are looked at before one is removed."""

WORTHS = range(4)
"""What a breaker may be worth, from 0 (nothing to lose) upwards."""


class Candidates:
    """Names of breakers, by what they were worth when they were last looked at.

    A name that is asked for counts as worth nothing until it is looked at, and goes to the end of
    those. A name that proved to be worth something is not looked at again while there are others.
    """

    def __init__(self) -> None:
        self._asked = count()
        # By worth: names, and when they were last asked for.
        self._by_worth: tuple[dict[str, int], ...] = tuple({} for _ in WORTHS)

    def add(self, name: str) -> None:
        """Append a name to those that are worth nothing."""
        self.discard(name)
        self._by_worth[0][name] = next(self._asked)

    def discard(self, name: str) -> None:
        """Remove a name. One that is not there is no error."""
        for names in self._by_worth:
            names.pop(name, None)

    def first(self) -> dict[str, int]:
        """Return the names to look at, and when they were asked for."""
        found: dict[str, int] = {}
        for names in self._by_worth:
            # Copied in one step, because code that interrupts this thread adds without the lock.
            found.update(tuple(islice(names.items(), LOOKS - len(found))))
        return found

    def choose(self, names: Mapping[str, int], worth: Mapping[str, int]) -> str:
        """Choose the name to remove, and file the others by what they are worth.

        Args:
            names: what :meth:`first` returned, at least one name.
            worth: what each is worth now. A name without a worth has been removed already.
        """
        chosen = min(names, key=lambda name: (worth.get(name, 0), names[name]))
        for name, asked in names.items():
            if name != chosen and worth.get(name):
                self.discard(name)
                self._by_worth[worth[name]][name] = asked
        return chosen
