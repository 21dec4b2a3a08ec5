"""The metrics of messages that were settled, counted when it happens."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from fusewire._locks import make_lock
from fusewire.breaker import Histogram
from fusewire.parking import MessageOutcome
from fusewire.telemetry._metrics import Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.parking import MessageEvent
    from fusewire.telemetry._metrics import Labels, Readings

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
PARKED_BOUNDS = (
    *(1.0, 2.5, 5.0, 10.0, 30.0),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY),
)

MESSAGES = Metric(
    "fusewire_messages_total",
    ("queue", "lane", "event", "reason"),
    "Messages that were settled, by what happened to them and why",
    Kind.COUNTER,
)
PARKED_SECONDS = Metric(
    "fusewire_parked_seconds",
    ("queue", "lane"),
    "Seconds from the first parking of a message until it was handled",
    Kind.HISTOGRAM,
    bounds=PARKED_BOUNDS,
)

METRICS = (MESSAGES, PARKED_SECONDS)

OTHER_REASON = "other"
"""The reason of messages whose own is one too many."""

_REASONS = frozenset(
    {
        "",
        "ambiguous",
        "in-doubt",
        "stale-key",
        "cancelled",
        "submitted",
        "busy",
        "circuit_open",
        "condition",
        "crashed",
        "exhausted",
        "expired",
        "failed",
        "key_not_sent_again",
        "malformed",
        "postponed",
        "refused",
        "rejected",
        "suspected",
    }
)
"""The reasons that Fusewire gives. Others come from handlers, by `Reject`."""

_MOST_REASONS = 20
"""How many other reasons become labels."""

# A series that appears with a value of 1 is a rise that no query sees. So the usual ones are there
# from the start.
_USUAL = (
    ("", MessageOutcome.HANDLED, ""),
    ("", MessageOutcome.DELAYED, "failed"),
    ("", MessageOutcome.DEAD, "exhausted"),
    ("", MessageOutcome.DEAD, "rejected"),
)
_USUAL_IN_LANES = (
    (MessageOutcome.PARKED, "circuit_open"),
    (MessageOutcome.PARKED, "failed"),
    (MessageOutcome.REPLAYED, "circuit_open"),
    (MessageOutcome.REPLAYED, "failed"),
    (MessageOutcome.DEAD, "exhausted"),
    (MessageOutcome.DEAD, "expired"),
)


class MessageCounts:
    """Counts messages. One for all consumers of a process, whose event loops may differ."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._messages: dict[Labels, int] = {}
        self._parked: dict[Labels, tuple[list[int], float]] = {}
        self._reasons: set[str] = set()

    def expect(self, queue: str, lanes: Iterable[str]) -> None:
        """Begin the usual counts of a queue at 0."""
        with self._lock:
            for lane, outcome, reason in _USUAL:
                self._messages.setdefault((queue, lane, outcome.value, reason), 0)
            for lane in lanes:
                for outcome, reason in _USUAL_IN_LANES:
                    self._messages.setdefault((queue, lane, outcome.value, reason), 0)
                self._parked.setdefault((queue, lane), _empty())

    def count(self, queue: str, event: MessageEvent) -> None:
        """Count a message of a consumer of `queue`. A message may name another queue itself."""
        with self._lock:
            reason = self._bounded(event.reason)
            labels = (queue, event.lane, event.outcome.value, reason)
            self._messages[labels] = self._messages.get(labels, 0) + 1
            if event.outcome is MessageOutcome.REPLAYED and event.first_parked_at is not None:
                seconds = max(event.ended_at - event.first_parked_at, 0.0)
                self._observe((queue, event.lane), seconds)

    def read(self, readings: Readings) -> None:
        """Add what was counted."""
        with self._lock:
            for labels, count in self._messages.items():
                readings.add(MESSAGES, labels, count)
            for labels, (counts, seconds) in self._parked.items():
                histogram = Histogram(PARKED_BOUNDS, tuple(counts), seconds)
                readings.add_histogram(PARKED_SECONDS, labels, histogram)

    def _observe(self, labels: Labels, seconds: float) -> None:
        counts, total = self._parked.get(labels) or _empty()
        counts[bisect_left(PARKED_BOUNDS, seconds)] += 1
        self._parked[labels] = counts, total + seconds

    def _bounded(self, reason: str) -> str:
        if reason in _REASONS:
            return reason
        reason = reason.encode("utf-8", "replace").decode()  # it may come from a header
        if reason in self._reasons:
            return reason
        if len(self._reasons) == _MOST_REASONS:
            return OTHER_REASON
        self._reasons.add(reason)
        return reason


def _empty() -> tuple[list[int], float]:
    return [0] * (len(PARKED_BOUNDS) + 1), 0.0
