"""The names by which our brokers store stations and marks.

RabbitMQ's queues and the rows of SQLite's files have had them since the first release, so they
cannot change: what waits there has to be found. Another adapter names its stations as it likes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from fusewire.brokers.topology import Station

MAX_NAME = 255  # bytes; AMQP 0-9-1's limit of a short string

LONE = "lone"
"""What follows the source's name in those of marks."""

_DIGEST = 16  # hexadecimal digits: 64 bits, ample to keep a few hundred names apart
_KNOWN = 1024  # stations of which the name is remembered: a process has a few


@lru_cache(_KNOWN)
def queue_name(place: Station | str) -> str:
    """Return the name of the queue that holds the messages of a station, or the name as it is."""
    if isinstance(place, str):
        return place
    match place.kind:
        case "source":
            return place.queue
        case "lane":
            return derived_name(place.queue, f"parked.{place.lane}")
        case kind:
            return derived_name(place.queue, kind)


def mark_name(queue: str, mark: str) -> str:
    """Return the name of the empty queue that is a mark."""
    return derived_name(queue, f"{LONE}.{mark}")


def derived_name(source: str, suffix: str) -> str:
    """Return the name of a queue that belongs to `source`, within AMQP's limit."""
    name = f"{source}.{_encode(suffix)}"
    if len(name.encode()) <= MAX_NAME:
        return name
    # Too long for AMQP: a readable head, and a digest of the whole that makes it unique.
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    head = name.encode()[: MAX_NAME - _DIGEST - 1].decode(errors="ignore")
    return f"{head}.{digest}"


def _encode(text: str) -> str:
    """Percent-encode `text`, with ``#`` for ``%``, which pamqp's names of queues may not have."""
    return quote(text, safe="._-/").replace("%", "#")
