"""What is kept of an error for the person who finds the message: short texts that can be stored."""

from __future__ import annotations

import dataclasses
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._error_types import error_type

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT = 8192
"""Bytes of UTF-8 kept of an exception's message and of its stack.

All headers of a message have to fit into one AMQP frame, of 128 KiB by default.
"""

_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """An error, in words.

    Attributes:
        exception: its type: see :func:`error_type`.
        message: its message, from the beginning.
        stack: its stack, with causes, to the end, which is where it happened.
    """

    exception: str
    message: str
    stack: str


def summarize_error(error: BaseException) -> ErrorSummary:
    """Put `error` into words that every broker can store, whatever it is made of."""
    return ErrorSummary(
        exception=_utf8(lambda: error_type(type(error)))[:_MAX_NAME].decode(errors="ignore"),
        message=_utf8(lambda: str(error))[:MAX_TEXT].decode(errors="ignore"),
        stack=_utf8(lambda: "".join(traceback.format_exception(error)))[-MAX_TEXT:].decode(
            errors="ignore"
        ),
    )


def name_error(error: BaseException) -> ErrorSummary:
    """Say which type `error` has and nothing else, where its text may quote what is secret."""
    return dataclasses.replace(summarize_error(error), message="", stack="")


def _utf8(describe: Callable[[], str]) -> bytes:
    try:
        return describe().encode("utf-8", "backslashreplace")
    except Exception as failed:  # noqa: BLE001 - an error whose own text cannot be made
        return f"(its text cannot be made: {type(failed).__name__})".encode()
