"""Consumers that are as a test says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusewire.parking import ConsumerStatus

NOW = 1_800_000_000.0
"""When the status is read, in seconds since 1970."""

WELL = ConsumerStatus(
    queue="orders",
    at=NOW,
    running=True,
    connected=True,
    connection_changed_at=NOW - 1000,
    subscribed=True,
    last_delivery_at=NOW - 2,
    in_flight=3,
    paused_by=None,
    loop_turned_at=NOW - 0.5,
    ready=None,
    delayed=None,
    dead=None,
    lanes={},
)


class FakeConsumer:
    """Has a status, and nothing else.

    Attributes:
        read: how often it was read.
    """

    def __init__(self, **changes: Any) -> None:
        self.now = replace(WELL, **changes)
        self.read = 0

    def becomes(self, **changes: Any) -> None:
        """Change the status."""
        self.now = replace(self.now, **changes)

    def status(self) -> ConsumerStatus:
        self.read += 1
        return self.now
