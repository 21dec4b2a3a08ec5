"""What the log says of a circuit: enough for the person who is woken up.

A line is queued with the change that it is about, and written when the listeners are called: after
the circuit's lock is released, in order. It has a text for people, and the same facts as fields for
searches and for JSON.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fusewire._log_fields import fields
from fusewire.breaker._events import Event, StateChanged
from fusewire.breaker._listeners import ListenerEntry
from fusewire.breaker._states import CircuitState

logger = logging.getLogger("fusewire.breaker")

SECONDS_BETWEEN_LINES = 60.0
"""Seconds between two lines that say that a circuit is still open."""


@dataclass(frozen=True, slots=True)
class LogLine(Event):
    """A change that the log is to report.

    Attributes:
        change: the change.
        message: the text of the last error; empty if it is not to be logged.
    """

    change: StateChanged
    message: str


# The level, the event's name, and the beginning of the text.
_STILL_OPEN = (logging.INFO, "circuit.still_open", "circuit %r is still open: %s")
_KINDS = {
    CircuitState.OPEN: (logging.WARNING, "circuit.opened", "circuit %r opened: %s"),
    CircuitState.HALF_OPEN: (logging.DEBUG, "circuit.half_open", "circuit %r is half open: %s"),
    CircuitState.CLOSED: (logging.INFO, "circuit.closed", "circuit %r closed: %s"),
    CircuitState.FORCED_OPEN: (
        logging.WARNING,
        "circuit.forced_open",
        "circuit %r is forced open: %s",
    ),
    CircuitState.DISABLED: (
        logging.WARNING,
        "circuit.disabled",
        "circuit %r is disabled, and admits all calls: %s",
    ),
    CircuitState.METRICS_ONLY: (
        logging.WARNING,
        "circuit.metrics_only",
        "circuit %r only counts, and admits all calls: %s",
    ),
}


def is_reopening(old: CircuitState, new: CircuitState) -> bool:
    """Return whether a probe has failed: the circuit is as open as before."""
    return old is CircuitState.HALF_OPEN and new is CircuitState.OPEN


def _write(line: LogLine) -> None:
    change = line.change
    kind = _STILL_OPEN if is_reopening(change.old, change.new) else _KINDS[change.new]
    level, event, text = kind
    details = "; ".join(_details(line))
    logger.log(level, text, change.name, details, extra=_fields(line, event))


TO_LOG = (ListenerEntry(_write, (LogLine,)),)
"""The log, as a listener."""


def _details(line: LogLine) -> list[str]:
    change = line.change
    why = str(change.reason)
    if change.by:
        why += f", by {change.by}"
    if change.note:
        why += f": {change.note}"
    details = [why]
    if change.new is CircuitState.OPEN and change.error_type:
        message = f": {line.message}" if line.message else ""
        details.append(f"last error {change.error_type} {change.error_status}".strip() + message)
    if change.outage_seconds is not None:
        calls = f"{change.rejected} calls rejected"
        details.append(f"open for {_seconds(change.outage_seconds)}, {calls}")
    if change.new is CircuitState.OPEN:
        details.append(f"it rejects calls for {_seconds(change.retry_after)}")
    return details


def _seconds(seconds: float) -> str:
    # Three digits, and never an exponent.
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"  # noqa: PLR2004 - see above


def _fields(line: LogLine, event: str) -> dict[str, float | str]:
    change, reason = line.change, line.change.reason
    decided = bool(reason.threshold)
    opened = change.new is CircuitState.OPEN
    return fields(
        event,
        circuit=change.name,
        old_state=change.old.value,
        new_state=change.new.value,
        reason=reason.cause.value,
        value=reason.value if decided else None,
        threshold=reason.threshold if decided else None,
        calls=reason.calls or None,
        error_type=(opened and change.error_type) or None,
        error_status=(opened and change.error_status) or None,
        error_message=(opened and line.message) or None,
        retry_after=round(change.retry_after, 3) if opened else None,
        seconds=None if change.outage_seconds is None else round(change.outage_seconds, 3),
        rejected=None if change.outage_seconds is None else change.rejected,
        by=change.by or None,
        note=change.note or None,
    )
