"""What is said of a message beyond its own queues, to those who wait for its end.

The settler says it, and not the handler: some messages are settled before a handler runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fusewire.brokers import Message
    from fusewire.parking._decisions import Dead, Done
    from fusewire.parking._in_flight import InFlight


class Reply(NamedTuple):
    """What is said of one message.

    Attributes:
        queue: the queue where it is waited for.
        message: what is stored there.
        final: whether it takes the message's place. Else the message goes where it goes without
            it, once this is stored.
    """

    queue: str
    message: Message
    final: bool


class Replies(Protocol):
    """Says what there is to say of messages that have come to an end."""

    def of(self, item: InFlight, verdict: Done | Dead) -> Reply | None:
        """Return what is said of `item`; None if nobody waits for it."""
