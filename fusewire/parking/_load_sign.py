"""What the end of a replay says about the load of its dependency: a pure table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._causes import status_in
from fusewire.parking._failures import REFUSED
from fusewire.parking._replay_controller import ReplayFailure

if TYPE_CHECKING:
    from fusewire.parking._handler import Attempt


@dataclass(frozen=True, slots=True)
class LoadSign:
    """What a failed replay says.

    Attributes:
        kind: whether the dependency was full or away, late, or neither.
        retry_after: seconds after which it asked to be called again; 0 if it did not.
    """

    kind: ReplayFailure
    retry_after: float = 0.0


LONGEST_PUSHBACK = 300.0
"""Seconds that a server may ask for at most: as long as a circuit stays open, by default. A hint is
a number from outside, and a wrong one would stop the lane until the process ends."""

_AWAY = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_OWN = LoadSign(ReplayFailure.OWN)


def load_sign(attempt: Attempt) -> LoadSign:
    """Return what a failed attempt says about the load.

    The last guarded call that shows a dependency which is full, away or late decides, whatever the
    handler made of it. Without such calls it is the handler's error.
    """
    for note in reversed(attempt.notes):
        away = note.status == "UNAVAILABLE" and note.condition is None  # else nothing was sent
        if note.condition == REFUSED or away:
            return LoadSign(ReplayFailure.REFUSED, min(note.retry_after or 0.0, LONGEST_PUSHBACK))
        if note.status == "DEADLINE_EXCEEDED":
            return LoadSign(ReplayFailure.LATE)
    error = attempt.error
    status = None if attempt.notes else status_in(error)
    if isinstance(error, TimeoutError) or status == "DEADLINE_EXCEEDED":  # also of the handler
        return LoadSign(ReplayFailure.LATE)
    if isinstance(error, ConnectionError) or status in _AWAY:
        return LoadSign(ReplayFailure.REFUSED)
    return _OWN
