"""What is kept of the error of a failed call: its type and status, and its text for the log only.

An error itself is never kept. It would keep the call's arguments alive, and its text may hold what
later callers must not see.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fusewire._causes import status_in
from fusewire._error_types import error_type
from fusewire.errors import NO_ERROR, CallError

MAX_MESSAGE = 1000
"""Characters that are kept of a message."""


def describe(error: BaseException | CallError | None, *, with_message: bool) -> CallError:
    """Return what may be kept of `error`, and its text if that is wanted."""
    if error is None:
        return NO_ERROR
    if isinstance(error, CallError):
        named, message = error, error.message
    else:
        named = _named(type(error), _status_of(error))  # type: ignore[arg-type] # a class is hashable
        message = _text_of(error) if with_message else ""
    if message or named.message:
        return CallError(named.type, named.status, message[:MAX_MESSAGE] if with_message else "")
    return named


@lru_cache(maxsize=512)
def _named(own: type[Any], status: str) -> CallError:
    return CallError(error_type(own), status)


def _status_of(error: BaseException) -> str:
    # Most errors have none and come from no other, and need no search.
    alone = error.__cause__ is None and error.__context__ is None
    if alone and not hasattr(error, "code") and not isinstance(error, BaseExceptionGroup):
        return ""
    return status_in(error) or ""


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - an error whose own text cannot be made
        return f"(its text cannot be made: {type(failed).__name__})"
