"""A number that threads count up without a lock."""

from __future__ import annotations

from itertools import count


class Tally:
    """Counts exactly from any thread: one step of :class:`itertools.count` cannot be interrupted.

    Attributes:
        add: count one more. What it returns means nothing.
    """

    __slots__ = ("_offset", "add")

    def __init__(self) -> None:
        self.add = count().__next__
        self._offset = 0

    def value(self) -> int:
        """Read the number. One reader at a time."""
        # Only a step tells where the count is. That step is no event, so it is taken off again.
        value = self.add() - self._offset
        self._offset += 1
        return value

    def set(self, value: int) -> None:
        """Go on from `value`."""
        current = self.value()
        self._offset += current - value
