"""What failed attempts have in common: the dependency, the kind of end, and whose fault it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._causes import status_in
from fusewire.operation import NOTES_KEPT
from fusewire.parking._errors import Reject

if TYPE_CHECKING:
    from fusewire.parking._handler import Attempt
    from fusewire.parking._history import History

REFUSED = "refused"
"""The condition of a server that is full, or that said when to come back."""

_WITHOUT_EFFECT = frozenset({"unauthenticated", "permission_denied", "local"})
"""Conditions in which the call was turned away at the door, or was not sent at all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What one failed attempt has in common with others.

    Attributes:
        dependency: the breaker of the call that it failed by; else what the message waited for
            last; empty where no dependency is involved.
        kind: how it ended: its condition, the name of its gRPC status, or the type of its error.
        condition: why no single message is to blame, None if this one may be.
        without_effect: whether no call of the attempt can have had an effect.
    """

    dependency: str
    kind: str
    condition: str | None = None
    without_effect: bool = False


def may_have_taken_effect(attempt: Attempt) -> bool:
    """Return whether a call of the attempt has had an effect, or may have had one."""
    if attempt.succeeded or len(attempt.notes) >= NOTES_KEPT:  # of more, the first are not known
        return True
    return any(note.condition not in _WITHOUT_EFFECT for note in attempt.notes)


def failure_of(attempt: Attempt, history: History) -> Failure:
    """Return what the failed `attempt` has in common with others.

    Its last call that did not end OK counts, unless the error comes from another one.
    """
    error: BaseException | None = attempt.error or attempt.rejected_because
    decided = attempt.error is None or isinstance(attempt.error, Reject)
    if isinstance(error, Reject):
        error = error.__cause__ or error
    status = status_in(error)
    notes = attempt.notes if status is None else [n for n in attempt.notes if n.status == status]
    named = status or (type(error).__qualname__ if error is not None else "rejected")
    if not notes:
        blamed = attempt.failed_breakers[0] if attempt.failed_breakers else history.dependency
        return Failure(blamed, named)
    note = notes[-1]
    if decided or note.condition is None:  # what the handler decides is no condition
        return Failure(note.breaker, named)
    return Failure(
        note.breaker,
        note.condition,
        note.condition,
        not may_have_taken_effect(attempt),
    )
