"""The error of a rejection, and who hears of it where it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._rejections import rejections
from fusewire.errors import CircuitOpenError
from fusewire.operation import current_operation

if TYPE_CHECKING:
    from fusewire.breaker._machine import Refusal


def rejection(name: str, refusal: Refusal) -> CircuitOpenError:
    """Return the error of a rejection, after noting it on the current operation.

    Args:
        name: the breaker's name.
        refusal: what it says besides.
    """
    operation = current_operation()
    if operation is not None:
        operation.note_rejection(name)
    error = CircuitOpenError(name, *refusal)
    if rejections.watchers:
        rejections.notify(error)
    return error
