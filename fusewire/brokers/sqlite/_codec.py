"""How a message is written in a row, without loss and without pickle.

The body is a BLOB. Everything else is one JSON object.
"""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from datetime import datetime
from types import NoneType
from typing import Any

from fusewire.brokers._header_json import pack, unpack
from fusewire.brokers.message import UNREADABLE, Message

logger = logging.getLogger("fusewire.brokers.sqlite")

_DEFAULTS: dict[str, object] = {
    field.name: field.default
    for field in fields(Message)
    if field.name not in ("body", "headers", "unreadable")
}

_KINDS: dict[str, tuple[type, ...]] = {
    name: (str, NoneType) for name in _DEFAULTS if name not in ("exchange", "routing_key")
} | {
    "exchange": (str,),
    "routing_key": (str,),
    "timestamp": (datetime, NoneType),
    "priority": (int, NoneType),
}

_to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps() makes one for each call


def encode(message: Message) -> tuple[str, bytes]:
    """Return the properties, as JSON in ASCII, and the body of `message`.

    Raises:
        TypeError: something in it cannot be stored; the error says where and what.
    """
    if not isinstance(message.body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be bytes, got {type(message.body).__name__}")
    properties: dict[str, object] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(message, name)
        if value is default:
            continue
        if not isinstance(value, _KINDS[name]):
            raise TypeError(f"{name} must be {_words(_KINDS[name])}, got {type(value).__name__}")
        if value != default:
            properties[name] = pack(value, name)
    try:
        if message.headers:
            properties["headers"] = pack(message.headers, "headers")
        return _to_json(properties), bytes(message.body)
    except RecursionError as error:
        raise TypeError("headers are nested too deeply to be stored") from error
    except ValueError as error:  # the one that json has left
        raise TypeError(f"headers hold a number that cannot be stored: {error}") from error


def decode(properties: str, body: bytes) -> Message:
    """Return the message of a row.

    A row that was damaged is still delivered, with its body and with its raw properties in a
    header: a receiver can dead-letter it, and it does not hold up the messages behind it.
    """
    try:
        values: dict[str, Any] = {
            name: unpack(value) for name, value in json.loads(properties).items()
        }
        return Message(body=body, **values)
    except (ValueError, TypeError, AttributeError, RecursionError):
        logger.exception("a stored message cannot be read; delivering its body as it is")
        return Message(
            body=body,
            headers={UNREADABLE: str(properties)},
            unreadable="the stored properties are damaged",
        )


def _words(kinds: tuple[type, ...]) -> str:
    return " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
