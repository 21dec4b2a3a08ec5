"""How a message is written in a row, without loss and without pickle.

The body is a BLOB. Everything else is one JSON object, in which the values that JSON lacks are
tagged: ``{"$bytes": "<base64>"}``, ``{"$datetime": "<ISO 8601>"}``, ``{"$float": "nan"}``. A
dictionary that has a key beginning with ``$`` is wrapped as ``{"$dict": {…}}``, so that no user's
header reads as a tag.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fusewire.brokers.message import Message

if TYPE_CHECKING:
    from fusewire.brokers.message import HeaderValue

UNREADABLE = "fusewire-unreadable"
"""The header that carries the stored properties of a row that cannot be read."""

_logger = logging.getLogger("fusewire.brokers.sqlite")

_DEFAULTS: dict[str, object] = {
    field.name: field.default for field in fields(Message) if field.name not in ("body", "headers")
}


def encode(message: Message) -> tuple[str, bytes]:
    """Return the properties, as JSON in ASCII, and the body of `message`.

    Raises:
        TypeError: a header holds what no broker can store; the error names it.
    """
    properties: dict[str, object] = {
        name: _pack(getattr(message, name), name)
        for name, default in _DEFAULTS.items()
        if getattr(message, name) != default
    }
    if message.headers:
        properties["headers"] = _pack(message.headers, "headers")
    return json.dumps(properties, separators=(",", ":")), bytes(message.body)


def decode(properties: str, body: bytes) -> Message:
    """Return the message of a row.

    A row that was damaged is still delivered, with its body and with its raw properties in a
    header: a receiver can put it aside, and it does not hold up the messages behind it.
    """
    try:
        values: dict[str, Any] = {
            name: _unpack(value) for name, value in json.loads(properties).items()
        }
        return Message(body=body, **values)
    except (ValueError, TypeError, AttributeError):
        _logger.exception("a stored message cannot be read; delivering its body as it is")
        return Message(body=body, headers={UNREADABLE: str(properties)})


def _pack(value: Any, where: str) -> object:
    if value is None or isinstance(value, (str, int)):  # bool is an int
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, list):
        return [_pack(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is a {type(key).__name__}; keys are strings")
        packed = {key: _pack(item, f"{where}.{key}") for key, item in value.items()}
        return {"$dict": packed} if any(key.startswith("$") for key in packed) else packed
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be stored; "
        "use bool, bytes, datetime, dict, float, int, list, str or None"
    )


def _unpack(value: Any) -> HeaderValue:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        plain: HeaderValue = value
        return plain
    match value:
        case {"$bytes": content}:
            return base64.b64decode(content, validate=True)
        case {"$datetime": content}:
            return datetime.fromisoformat(content)
        case {"$float": content}:
            return float(content)
        case {"$dict": content}:
            value = content
    return {key: _unpack(item) for key, item in value.items()}
