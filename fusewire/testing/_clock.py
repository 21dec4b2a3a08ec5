"""A clock that advances only when a test says so."""

from __future__ import annotations


class FakeClock:
    """Monotonic seconds under a test's control. Pass it wherever there is a `clock` argument.

    Args:
        now: the first reading, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Read the clock, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass.

        Raises:
            ValueError: `seconds` is negative: a monotonic clock does not go back.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, got {seconds!r}")
        self.now += seconds
