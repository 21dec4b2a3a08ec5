"""A counter that threads share without a lock."""

from __future__ import annotations

from itertools import count


class AtomicCounter:
    """Counts exactly from any thread: one step of :class:`itertools.count` cannot be interrupted.

    Attributes:
        add: add 1. Ignore what it returns.
    """

    __slots__ = ("_count", "_offset", "add")

    def __init__(self) -> None:
        self._count = count()
        self.add = self._count.__next__
        self._offset = 0

    def value(self) -> int:
        """Return the count without changing it."""
        # Only its repr shows a count without advancing it.
        return self._offset + int(repr(self._count)[len("count(") : -1])

    def set(self, value: int) -> None:
        """Continue from `value`."""
        self._offset += value - self.value()
