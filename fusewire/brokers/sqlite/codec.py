"""How a message is written in a row, without loss and without pickle.

The body is a BLOB. Everything else is one JSON object.
"""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from typing import Any

from fusewire.brokers.message import Message
from fusewire.brokers.tagged import pack, unpack

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
        name: pack(getattr(message, name), name)
        for name, default in _DEFAULTS.items()
        if getattr(message, name) != default
    }
    if message.headers:
        properties["headers"] = pack(message.headers, "headers")
    return json.dumps(properties, separators=(",", ":")), bytes(message.body)


def decode(properties: str, body: bytes) -> Message:
    """Return the message of a row.

    A row that was damaged is still delivered, with its body and with its raw properties in a
    header: a receiver can put it aside, and it does not hold up the messages behind it.
    """
    try:
        values: dict[str, Any] = {
            name: unpack(value) for name, value in json.loads(properties).items()
        }
        return Message(body=body, **values)
    except (ValueError, TypeError, AttributeError):
        _logger.exception("a stored message cannot be read; delivering its body as it is")
        return Message(body=body, headers={UNREADABLE: str(properties)})
