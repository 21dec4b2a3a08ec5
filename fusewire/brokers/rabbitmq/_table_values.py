"""Values in AMQP's field tables: what pamqp can write, what RabbitMQ can read, and what is lost."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers.message import HeaderValue

_CHARACTER = 4  # bytes that one has in UTF-8 at most
_MAX_NAME = 128  # bytes of a header's name, to which pamqp cuts it
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # of 32 bits, with which pamqp writes all of them
_INTEGERS = range(-(2**63), 2**63)  # that a table can hold


def to_table(value: Any) -> Any:
    """Make of `value` what pamqp can write, and RabbitMQ read, or what comes near to it."""
    if isinstance(value, bytes):
        return bytearray(value)  # pamqp knows byte strings as those only
    if isinstance(value, dict):
        return {key: to_table(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_table(item) for item in value]
    return _to_scalar(value)


def _to_scalar(value: Any) -> Any:
    if isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
        # Larger ones pamqp does not write; and for an infinite one, or one that is no number,
        # RabbitMQ closes the connection (INTERNAL_ERROR: Erlang has none; seen on 3.10.8).
        return math.copysign(_LARGEST_FLOAT, value)
    if isinstance(value, int) and value not in _INTEGERS:
        return str(value)
    if isinstance(value, datetime) and value.year < 1970:  # noqa: PLR2004 - AMQP's times begin then
        return value.isoformat()
    return value


def from_table(value: Any) -> HeaderValue:
    """Return what a table's value is to us."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return {key: from_table(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_table(item) for item in value]
    plain: HeaderValue = value
    return plain


def holds(value: HeaderValue, kind: Callable[[object], bool]) -> bool:
    """Return whether `value`, or something in it, is of a kind."""
    if isinstance(value, dict):
        return any(holds(item, kind) for item in value.values())
    if isinstance(value, list):
        return any(holds(item, kind) for item in value)
    return kind(value)


def is_plain(value: object) -> bool:
    """Return whether `value` is a text or a number that a table holds as it is."""
    return isinstance(value, str) or (type(value) is int and value in _INTEGERS)


def is_inexact(value: object) -> bool:
    """Return whether a table holds `value` otherwise than it is."""
    if isinstance(value, int):
        return value not in _INTEGERS
    if isinstance(value, datetime):
        return value.microsecond > 0 or value.year < 1970  # noqa: PLR2004 - see _to_scalar
    return isinstance(value, float)


def is_too_long(name: str) -> bool:
    """Return whether pamqp cuts a header's name."""
    # Most are short: four bytes are the most that a character has.
    return len(name) > _MAX_NAME // _CHARACTER and (
        len(name.encode(errors="surrogatepass")) > _MAX_NAME
    )


def has_long_names(value: HeaderValue) -> bool:
    """Return whether a table in `value` has a name that pamqp cuts."""
    if isinstance(value, dict):
        return any(is_too_long(name) or has_long_names(item) for name, item in value.items())
    return isinstance(value, list) and any(map(has_long_names, value))


def is_decimal(value: object) -> bool:
    """Return whether `value` is a decimal, which AMQP has and JSON lacks."""
    return isinstance(value, Decimal)
