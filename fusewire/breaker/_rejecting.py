"""The error of a rejection, and who hears of it where it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._rejections import rejections
from fusewire.errors import CircuitOpenError
from fusewire.operation import entered_operation

if TYPE_CHECKING:
    from fusewire.breaker._states import CircuitState
    from fusewire.errors import CallError


def rejection(
    name: str, state: CircuitState, retry_after: float, reason: str, last_error: CallError
) -> CircuitOpenError:
    """Return the error of a rejection, after noting it on the current operation.

    The arguments are those of the error.
    """
    operation = entered_operation()
    if operation is not None and not operation.ended:
        operation.note_rejection(name)
    error = CircuitOpenError(name, state, retry_after, reason, last_error)
    if rejections.watchers:
        rejections.notify(error)
    return error
