"""A message to and from AMQP, with its identity kept over every transfer.

A transfer republishes, so the exchange, routing key, user id and message id that AMQP shows are the
transfer's. The original ones travel in headers and are restored when the message is read.

Headers have to fit into one frame, 128 KiB by default, and RabbitMQ closes a connection that sends
more. If ours do not fit beside those of a message, all go before its body, and are read from there.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pamqp import decode
from pamqp.commands import Basic

from fusewire.brokers._header_json import pack, unpack
from fusewire.brokers.message import UNREADABLE, HeaderValue, Message
from fusewire.brokers.rabbitmq._table_values import (
    from_table,
    has_long_names,
    holds,
    is_decimal,
    is_inexact,
    is_plain,
    is_too_long,
    to_table,
)
from fusewire.brokers.rabbitmq._workarounds.field_tables import (
    WrittenProperties,
    write_table,
)
from fusewire.brokers.rabbitmq._workarounds.unreadable import UNREADABLE_PROPERTIES

if TYPE_CHECKING:
    from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import Delivered

logger = logging.getLogger("fusewire.brokers.rabbitmq")

TRANSFER = "fusewire-transfer"
"""Header of a republished message: the format version of the headers that keep its identity."""

_FORMAT = 1
_MESSAGE_ID = "fusewire-message-id"
_EXCHANGE = "fusewire-exchange"
_ROUTING_KEY = "fusewire-routing-key"
_USER_ID = "fusewire-user-id"
_BLANK = "fusewire-blank"  # properties that are "" or 0: aio-pika takes them for absent
_EXACT = "fusewire-exact"  # headers that AMQP, or pamqp, holds inexactly: floats above all
_IDENTITY = frozenset({TRANSFER, _MESSAGE_ID, _EXCHANGE, _ROUTING_KEY, _USER_ID, _BLANK, _EXACT})
_READ = _IDENTITY | {UNREADABLE_PROPERTIES}  # what a message's properties are made of
_IN_BODY = "fusewire-headers-in-body"  # the bytes of the body that are the table of headers
_BESIDE = 6144
"""Bytes of a frame that are not for our headers.

They are for the properties, of which each is 255 bytes at most, and for what the broker adds to a
message that comes back from a delay queue.
"""
_TEXTS = ("content_type", "content_encoding", "correlation_id", "reply_to", "type", "app_id")

DELIVERY_COUNT = "x-delivery-count"
"""The header in which a quorum queue says how often a message was returned to it."""

# Kept on a republish, these make the broker act on the message: with x-death a message that went
# twice round two TTL queues is dropped as a dead-letter cycle, and CC and BCC route it elsewhere
# too. So they travel under our prefix, and are themselves again when the message is read.
_COUNTS = frozenset({DELIVERY_COUNT, "x-acquired-count"})
_DELIVERYS = _COUNTS | {UNREADABLE_PROPERTIES}  # what is the delivery's, not the message's
_BROKERS_OWN = frozenset({"x-death", "CC", "BCC", *_COUNTS})
_FIRST_DEATH, _LAST_DEATH = "x-first-death-", "x-last-death-"
_CARRIED = "fusewire-"
_OUR_DELAY = re.compile(r"\.delay\.\d+\Z")  # how the names of delay queues end; see Layout

_PERSISTENT = 2  # AMQP's delivery mode
_NAMES_KNOWN = 1024  # of which it is remembered whose they are: messages have few, and the same


def to_amqp(message: Message, frame: int) -> tuple[bytes, WrittenProperties]:
    """Make the AMQP body and properties that store `message`.

    Args:
        message: what to store.
        frame: bytes that a frame can carry.

    Raises:
        ValueError: AMQP cannot carry it. That is never so of a message that AMQP brought.
    """
    headers: dict[str, object] = {}
    try:
        headers, others = _headers(message), _other_properties(message)
        table, body = write_table(headers), message.body
        if len(table) > frame - _BESIDE:
            table, body = write_table({TRANSFER: _FORMAT, _IN_BODY: len(table)}), table + body
        return body, WrittenProperties(table, others)
    except Exception as error:  # whatever pamqp makes of it: it promises no class of errors
        why = _what_cannot_be_written(headers, _other_properties(message))
        raise ValueError(f"AMQP cannot carry it: {why or repr(error)}") from error


def _headers(message: Message) -> dict[str, object]:
    """Return the headers that store `message`, those of its identity included."""
    headers: dict[str, object] = {}
    exact = {}
    for key, value in message.headers.items():
        name, too_long = _carried(key)
        if not too_long and is_plain(value):  # as nearly all are
            headers[name] = value
            continue
        inexact = too_long or holds(value, is_inexact) or has_long_names(value)
        # A decimal is nothing that a header of ours may hold, but AMQP brings them; JSON has none.
        if inexact and not holds(value, is_decimal):
            exact[key] = value
            if too_long:
                continue
        headers[name] = to_table(value)
    headers[TRANSFER] = _FORMAT
    headers[_EXCHANGE] = message.exchange
    headers[_ROUTING_KEY] = message.routing_key
    if message.message_id is not None:
        headers[_MESSAGE_ID] = message.message_id
    if message.user_id is not None:
        # As a property the broker would refuse it: it must name the user of this connection.
        headers[_USER_ID] = message.user_id
    blank = [name for name in _TEXTS if getattr(message, name) == ""]
    if message.priority == 0:
        blank.append("priority")
    if blank:
        headers[_BLANK] = ",".join(blank)
    if exact:
        headers[_EXACT] = json.dumps(pack(exact, "headers"), separators=(",", ":"))
    return headers


def _other_properties(message: Message) -> dict[str, object]:
    """Return the properties beside the headers: persistent, never expiring, with a fresh id.

    The id is fresh because aiormq matches a returned message to its publish by it: two
    publishes under one id at the same time, and a returned one was seen reported as confirmed.
    """
    return {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "delivery_mode": _PERSISTENT,
        "priority": message.priority,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "message_id": uuid.uuid4().hex,
        "timestamp": message.timestamp,
        "message_type": message.type,
        "app_id": message.app_id,
    }


def _what_cannot_be_written(headers: dict[str, object], others: dict[str, object]) -> str:
    """Say which header or property pamqp does not write, and why; empty where it writes all."""
    for header, value in headers.items():
        if why := _refusal({"headers": {header: value}}):
            return f"header {header!r:.80} cannot be {value!r:.80} ({why})"
    for name, value in others.items():
        if why := _refusal({name: value}):
            return f"{name} cannot be {value!r:.80} ({why})"
    return ""


def _refusal(properties: dict[str, Any]) -> str:
    try:
        Basic.Properties(**properties).marshal()
    except Exception as error:  # noqa: BLE001 - pamqp promises no class of errors
        return f"{type(error).__name__}: {error}"
    return ""


def from_amqp(delivered: Delivered) -> Message:
    """Read a delivery, with the identity that it had before any transfer.

    One that cannot be read comes with its body, its raw headers in a text, and why.
    """
    try:
        return _read(delivered)
    except Exception as error:
        logger.exception("a message cannot be read; it is handed on as one that is malformed")
        return Message(
            body=delivered.body,
            headers={UNREADABLE: repr(delivered.properties.headers)},
            message_id=delivered.properties.message_id,
            exchange=delivered.exchange,
            routing_key=delivered.routing_key,
            unreadable=f"the headers cannot be read ({type(error).__name__})",
        )


def _read(delivered: Delivered) -> Message:
    properties = delivered.properties
    headers: dict[str, Any] = properties.headers or {}
    body = delivered.body
    if _IN_BODY in headers:
        headers, body = _from_body(headers, body)
    blank = False
    if TRANSFER in headers:
        kept = _as_before_its_transfer(headers)
        message_id, user_id = _text(headers, _MESSAGE_ID), _text(headers, _USER_ID)
        exchange, routing_key = _text(headers, _EXCHANGE), _text(headers, _ROUTING_KEY)
        blank = _BLANK in headers
    else:
        kept = {
            name: value if type(value) is str or type(value) is int else from_table(value)
            for name, value in headers.items()
            if name not in _DELIVERYS
        }
        message_id, user_id = properties.message_id, properties.user_id
        exchange, routing_key = delivered.exchange, delivered.routing_key

    message = Message(
        body=body,
        headers=kept,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        message_id=message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        type=properties.message_type,
        user_id=user_id,
        app_id=properties.app_id,
        timestamp=properties.timestamp,
        priority=properties.priority or None,
        exchange=exchange or "",
        routing_key=routing_key or "",
        unreadable=_why_unreadable(headers) if UNREADABLE_PROPERTIES in headers else None,
    )
    return _with_blanks(message, str(headers[_BLANK])) if blank else message


def _with_blanks(message: Message, names: str) -> Message:
    """Return `message` with the properties that were blank; few have any."""
    blanks: dict[str, Any] = {name: "" for name in names.split(",") if name in _TEXTS}
    if "priority" in names.split(",") and message.priority is None:
        blanks["priority"] = 0
    return dataclasses.replace(message, **blanks)


def _text(headers: dict[str, Any], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else str(value)


def _why_unreadable(headers: dict[str, Any]) -> str:
    return f"properties cannot be read: {headers[UNREADABLE_PROPERTIES]}"


@lru_cache(_NAMES_KNOWN)
def _is_brokers_own(name: str) -> bool:
    return name in _BROKERS_OWN or name.startswith((_FIRST_DEATH, _LAST_DEATH))


@lru_cache(_NAMES_KNOWN)
def _carried(name: str) -> tuple[str, bool]:
    """Return the name by which a header travels, and whether it is too long for that."""
    carried = f"{_CARRIED}{name}" if _is_brokers_own(name) else name
    return carried, is_too_long(carried)


@lru_cache(_NAMES_KNOWN)
def _arrived(name: str) -> str | None:
    """Return the name that a header had before it travelled; None if it came on the way."""
    if name in _READ or _is_brokers_own(name):
        return None
    carried = name.removeprefix(_CARRIED)
    return carried if _is_brokers_own(carried) else name


def _as_before_its_transfer(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the headers that a message had, with what the broker has added since a transfer.

    How often it was returned to the queue that it comes from is the delivery's, not the message's.
    """
    kept: dict[str, Any] = {}
    hops: dict[str, HeaderValue] = {}
    for name, value in headers.items():
        if (arrived := _arrived(name)) is not None:
            kind = type(value)
            kept[arrived] = value if kind is str or kind is int else from_table(value)
        elif name not in _READ:
            hops[name] = from_table(value)
    if hops:
        _add_hops(kept, hops)
    if _EXACT in headers:
        kept.update(_exact(from_table(headers[_EXACT])))
    return kept


def _add_hops(kept: dict[str, Any], hops: dict[str, HeaderValue]) -> None:
    """Add the queues that a message has been through since its transfer, except our delays.

    Those are the user's, for example of a shovel that takes a dead message through them.
    """
    deaths, before = hops.get("x-death"), kept.get("x-death")
    if isinstance(deaths, list) and (theirs := [death for death in deaths if not _is_ours(death)]):
        kept["x-death"] = [*theirs, *(before if isinstance(before, list) else ())]
    for beginning, known in ((_FIRST_DEATH, kept), (_LAST_DEATH, {})):
        if f"{beginning}queue" in known or _is_ours({"queue": hops.get(f"{beginning}queue")}):
            continue
        kept.update({key: value for key, value in hops.items() if key.startswith(beginning)})


def _is_ours(death: HeaderValue) -> bool:
    queue = death.get("queue") if isinstance(death, dict) else None
    return isinstance(queue, str) and _OUR_DELAY.search(queue) is not None


def _from_body(headers: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take the headers off the body; where somebody has damaged them, all stays as it is."""
    size = headers[_IN_BODY]
    try:
        read, table = decode.field_table(body[:size])
    except Exception:  # noqa: BLE001 - whatever pamqp makes of somebody's bytes
        return headers, body
    return (table, body[size:]) if read == size else (headers, body)


def _exact(written: HeaderValue) -> dict[str, HeaderValue]:
    """Read the exact headers; where somebody has damaged them, the inexact ones have to do."""
    try:
        exact = unpack(json.loads(written)) if isinstance(written, str) else {}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return exact if isinstance(exact, dict) else {}
