"""Copies of messages, so that nobody changes what is stored. They refuse what cannot be stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fusewire.errors import MoveRefusedError

if TYPE_CHECKING:
    from fusewire.brokers import HeaderValue, Message

_KINDS: dict[str, type] = {"timestamp": datetime, "priority": int}
"""What the properties hold that are no texts."""


def to_store(message: Message) -> Message:
    """Return a copy of `message` to store, without what is set on reading only.

    Raises:
        TypeError: the body, a property or a header is of a type that no broker stores.
        MoveRefusedError: a text cannot be stored.
    """
    if not isinstance(message.body, bytes | bytearray | memoryview):
        raise TypeError(f"body must be bytes, got a {type(message.body).__name__}")
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if field.name not in ("body", "headers", "unreadable") and value != field.default:
            _check(value, field.name, _KINDS.get(field.name, str))
    try:
        headers = _table(message.headers, "header")
    except RecursionError:
        raise TypeError("the headers are nested too deeply to be stored") from None
    return dataclasses.replace(message, body=bytes(message.body), headers=headers, unreadable=None)


def to_read(message: Message) -> Message:
    """Return a copy of a stored message, which its reader may change."""
    return dataclasses.replace(message, headers=_table(message.headers, "header"))


def _table(table: Mapping[Any, Any], where: str) -> dict[str, HeaderValue]:
    copied: dict[str, HeaderValue] = {}
    for key, value in table.items():
        _check(key, f"the key {key!r} of {where}", str)
        copied[key] = _value(value, f"{where} {key!r}")
    return copied


def _value(value: Any, where: str) -> HeaderValue:
    match value:
        case str():
            _check(value, where, str)
            return value
        case None | bool() | bytes() | float() | int() | datetime():
            return value
        case list():
            return [_value(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case Mapping():
            return _table(value, where)
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be stored; "
        "use bool, bytes, datetime, dict, float, int, list, str or None"
    )


def _check(value: object, where: str, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{where} must be a {kind.__name__}, got a {type(value).__name__}")
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        raise MoveRefusedError(
            f"{where} holds half a surrogate pair, which UTF-8 cannot encode; nothing was stored"
        ) from None
