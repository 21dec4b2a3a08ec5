"""What calls took before an outage, written into what is parked in it.

A replica that began later has made no live call. What it could measure are replays beside those of
others, and a reference taken under that load has it replay more than there is room for. So a
message carries what the replica knew that parked it: for each method
``<mean>:<reference>:<method>``, in microseconds, with a space between methods. The method is empty
where there are none: of a decorated function, or of a handler that makes no measured calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fusewire.breaker import Baseline

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from fusewire.parking._replay_measures import HandlerTimes

Baselines: TypeAlias = "tuple[tuple[str, Baseline], ...]"
"""Methods, each with what its live calls took."""

_LONGEST = 3600.0
"""Seconds. What takes longer is no call: a header is a number from outside."""

_MOST_METHODS = 8
_MOST_REMEMBERED = 1000
"""Dependencies whose texts are remembered."""


class LiveCalls:
    """Says what live calls took, by dependency.

    Args:
        registry: where the breakers are.
        handler: how long the handler takes, if it makes no measured calls; None without one.
    """

    def __init__(self, registry: BreakerRegistry, handler: HandlerTimes | None = None) -> None:
        self._registry = registry
        self._handler = handler
        self._texts: dict[str, tuple[Baselines, str]] = {}

    def of(self, dependency: str) -> str:
        """Return what live calls of a dependency took; empty if it is not known."""
        found = self._of_calls(dependency) or self._of_handler(dependency)
        if not found:
            return ""
        known = self._texts.get(dependency)
        if known is None or known[0] != found:  # in an outage they stay the same
            if len(self._texts) >= _MOST_REMEMBERED:
                self._texts.clear()
            known = self._texts[dependency] = found, _text(found)
        return known[1]

    def _of_calls(self, dependency: str) -> Baselines:
        breaker = self._registry.find(dependency)
        durations = None if breaker is None else breaker.durations
        return () if durations is None else durations.baselines()

    def _of_handler(self, dependency: str) -> Baselines:
        if self._handler is None:
            return ()
        return self._handler.of(dependency).baselines() or self._handler.of("").baselines()


def read_live_calls(text: str) -> dict[str, Baseline]:
    """Return the baselines that `text` tells, by method, without what cannot be read."""
    told = {}
    for word in text.split(" ")[:_MOST_METHODS]:
        typical, _, rest = word.partition(":")
        reference, _, method = rest.partition(":")
        if all(number.isascii() and number.isdigit() for number in (typical, reference)):
            seconds = int(typical[:12]) / 1e6, int(reference[:12]) / 1e6
            if 0 < seconds[0] <= seconds[1] <= _LONGEST:
                told[method] = Baseline(seconds[1], seconds[0], 0)
    return told


def _text(found: Baselines) -> str:
    words = []
    for method, baseline in found[:_MOST_METHODS]:
        typical = max(1, round(baseline.typical * 1e6))
        reference = max(typical, round(baseline.reference * 1e6))
        if " " not in method:
            words.append(f"{typical}:{reference}:{method}")
    return " ".join(words)
