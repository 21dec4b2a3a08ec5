"""A number that threads count up without a lock."""

from __future__ import annotations

from itertools import count


class AtomicCounter:
    """Counts exactly from any thread: one step of :class:`itertools.count` cannot be interrupted.

    Attributes:
        add: count one more. What it returns means nothing.
    """

    __slots__ = ("_count", "_offset", "add")

    def __init__(self) -> None:
        self._count = count()
        self.add = self._count.__next__
        self._offset = 0

    def value(self) -> int:
        """Read the number, which changes nothing."""
        # A count's text is the one way to read it without a step.
        return self._offset + int(repr(self._count)[len("count(") : -1])

    def set(self, value: int) -> None:
        """Go on from `value`."""
        self._offset += value - self.value()
