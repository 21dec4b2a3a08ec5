"""What forwarding changes of a consumer before it runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fusewire.parking._error_summary import name_error

if TYPE_CHECKING:
    from fusewire.parking._consumer import ParkingConsumer
    from fusewire.parking._replies import Replies
    from fusewire.parking._settlements import Settlements
    from fusewire.parking._tracing import Tracing


def share_reports(consumer: ParkingConsumer, settlements: Settlements, tracing: Tracing) -> None:
    """Have `consumer` report by what another object reports by."""
    parts = consumer._parts  # noqa: SLF001 - private to users, and not to its own room
    parts.settlements = settlements
    parts.tracing = tracing


def settle_calls(consumer: ParkingConsumer, replies: Replies) -> None:
    """Have `consumer` settle the calls that its messages store, and say what became of them."""
    parts = consumer._parts  # noqa: SLF001 - see above
    parts.replies = replies
    parts.policy = dataclasses.replace(parts.policy, of_calls=True)


def keep_no_texts(consumer: ParkingConsumer) -> None:
    """Have `consumer` store no text of an error and no stack with a message."""
    parts = consumer._parts  # noqa: SLF001 - see above
    parts.policy = dataclasses.replace(parts.policy, describe=name_error)
