"""Copies of messages, so that nobody changes what is stored. They refuse what cannot be stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fusewire.errors import MoveRefusedError

if TYPE_CHECKING:
    from fusewire.brokers import HeaderValue, Message

_WHOLE = 2**63  # brokers store whole numbers in 64 bits, of which one is the sign
_KINDS = "use bool, bytes, datetime, dict, float, int, list, str or None"


def to_store(message: Message) -> Message:
    """Return a copy of `message` to store, without what is set on reading only.

    Raises:
        TypeError: the body or a header is of a type that no broker stores.
        MoveRefusedError: a text or a number cannot be stored.
    """
    if not isinstance(message.body, bytes):
        raise TypeError(f"the body must be bytes, got a {type(message.body).__name__}")
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, str):
            _check_text(value, f"the message's {field.name}")
    return dataclasses.replace(message, headers=_headers(message), unreadable=None)


def to_read(message: Message) -> Message:
    """Return a copy of a stored message, which its reader may change."""
    return dataclasses.replace(message, headers=_headers(message))


def _headers(message: Message) -> dict[str, HeaderValue]:
    return _table(message.headers, "header ")


def _table(table: Mapping[Any, Any], where: str) -> dict[str, HeaderValue]:
    copied: dict[str, HeaderValue] = {}
    for key, value in table.items():
        if not isinstance(key, str):
            raise TypeError(f"{where}{key!r}: a {type(key).__name__} cannot be a key; use a str")
        _check_text(key, f"{where}{key!r}")
        copied[key] = _value(value, f"{where}{key!r}")
    return copied


def _value(value: Any, where: str) -> HeaderValue:
    match value:
        case None | bool() | bytes() | float() | datetime():
            return value
        case str():
            _check_text(value, where)
            return value
        case int():
            if not -_WHOLE <= value < _WHOLE:
                raise MoveRefusedError(f"{where} does not fit into 64 bits; nothing was stored")
            return value
        case list():
            return [_value(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case Mapping():
            return _table(value, f"{where}.")
    raise TypeError(f"{where} holds a {type(value).__name__}, which cannot be stored; {_KINDS}")


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MoveRefusedError(
            f"{where} holds half a surrogate pair, which UTF-8 cannot encode; nothing was stored"
        ) from None
