"""How long a circuit stays open, and how its load grows back afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._validation import is_seconds

if TYPE_CHECKING:
    from fusewire.breaker._settings import BreakerSettings


def open_time(settings: BreakerSettings, reopenings: int) -> float:
    """Return for how many seconds a circuit opens after `reopenings` failed rounds of probes.

    The jitter is not included: see :func:`with_jitter`.
    """
    try:
        grown = settings.recovery_timeout * settings.recovery_timeout_growth**reopenings
    except OverflowError:
        return settings.max_open_time
    return min(grown, settings.max_open_time)


def with_jitter(settings: BreakerSettings, seconds: float, drawn: float) -> float:
    """Shorten `seconds` by the share of the jitter that was `drawn`, from 0 and below 1."""
    return seconds * (1 - settings.recovery_timeout_jitter * drawn)


def hinted_time(settings: BreakerSettings, retry_after: float | None) -> float | None:
    """Return for how many seconds the dependency asked not to be called, up to the maximum.

    None if `retry_after` is not a positive finite number.
    """
    if retry_after is None or not is_seconds(retry_after):
        return None
    return min(retry_after, settings.max_open_time)


class RampUp:
    """Admits a growing share of calls after a circuit has closed.

    Nothing is random: each call adds the current share to a credit, and is admitted when the credit
    reaches a whole call. The first call is admitted at once.

    Attributes:
        end: the time from which all calls are admitted again.
    """

    __slots__ = ("_began", "_credit", "_duration", "end")

    def __init__(self, began: float, duration: float) -> None:
        self._began = began
        self._duration = duration
        self._credit = 1.0
        self.end = began + duration

    def is_over(self, now: float) -> bool:
        """Return whether all calls are admitted again."""
        return now >= self.end

    def admits(self, now: float) -> bool:
        """Return whether a call made now would be admitted, without counting it."""
        return self._credit + self._share(now) >= 1

    def take(self, now: float) -> bool:
        """Count a call, and return whether it is admitted."""
        admitted = self.admits(now)
        self._credit += self._share(now) - admitted
        return admitted

    def wait(self, now: float) -> float:
        """Return in how many seconds a call would be admitted if no other came first."""
        return max(self._began + self._duration * (1 - self._credit) - now, 0.0)

    def _share(self, now: float) -> float:
        return (now - self._began) / self._duration
