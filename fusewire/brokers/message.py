"""A message as every broker stores it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

_Scalar: TypeAlias = bool | bytes | datetime | float | int | str | None
HeaderValue: TypeAlias = _Scalar | list["HeaderValue"] | dict[str, "HeaderValue"]
"""What a header may hold: the part of AMQP's field table that survives every broker."""

UNREADABLE = "fusewire-unreadable"
"""The header in which a message that could not be read carries what could not be read of it."""


# Not frozen, although nothing changes one: it is made for each delivery, which would take six times
# as long, 2 % of what a handled message costs.
@dataclass(slots=True, kw_only=True)
class Message:
    """One message: its body, its headers, and the properties that travel with it.

    There is no expiration: Fusewire never lets a broker delete a message by its age.

    Attributes:
        body: the payload.
        headers: application headers.
        content_type: MIME type of the body.
        content_encoding: MIME encoding of the body.
        message_id: the publisher's identity of the message, which every move keeps. If a broker
            needs an id for each transfer, that is another one, which nobody sees.
        correlation_id: what the message belongs to.
        reply_to: where an answer is wanted.
        type: the application's name for the kind of message.
        user_id: the publisher's user, as the broker checked it on the first publish.
        app_id: the publishing application.
        timestamp: when the publisher says that it was made.
        priority: AMQP priority, 0 to 255.
        exchange: the exchange that it was published to; empty for the default one.
        routing_key: the routing key that it was published with.
        unreadable: why the broker could not read all of what is stored; None for every other
            message. It is set on reading only, and never stored. Parking dead-letters such a
            message as ``malformed``, so that it holds up nobody.
    """

    body: bytes
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    timestamp: datetime | None = None
    priority: int | None = None
    exchange: str = ""
    routing_key: str = ""
    unreadable: str | None = None
