"""A delivery, as it is worked on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusewire.parking._history import strip, was_moved
from fusewire.parking._view import MessageView

if TYPE_CHECKING:
    from fusewire.brokers import Delivery, Message
    from fusewire.parking._history import History
    from fusewire.parking._receiver import Receiver
    from fusewire.parking._tracing import MessageSpan

_DELIVERY_COUNT = "x-delivery-count"
"""Where a quorum queue says how often a message was returned to it: handlers may count by it."""


@dataclass(slots=True)
class InFlight:
    """A delivery, as it is worked on."""

    delivery: Delivery
    history: History
    view: MessageView
    since: float
    """When it came into hand, in monotonic seconds."""
    receiver: Receiver
    """What it came through, which knows whether all that is in flight is to go back."""
    tried: bool = False
    """Whether its handler was called, and not just refused."""
    in_doubt: bool = False
    """Whether a move ended in doubt, so that there may be a copy of it already."""
    lone: int = 0
    """Which time it is that it is handled with nothing else in flight; 0 if it need not be."""
    anonymous: bool = False
    """Whether it has no identity, so that one that is equal to it may be another."""
    seconds: float | None = None
    """How long its handler took, the last time that it was called here; None if it was not."""
    status: str = ""
    """The name of the gRPC status that its handler failed with then, if any."""
    noticed: bool = False
    """Whether those who wait for its end were told that a person has to decide."""
    survived: bool = False
    """Whether this process is known to have survived the handling that it came back from."""
    span: MessageSpan | None = None
    """Its trace, if it has begun."""

    @property
    def goes_back_as_it_is(self) -> bool:
        """Whether it must not be stored again as one that was never tried, but be redelivered."""
        return self.tried or self.in_doubt

    def fresh_view(self) -> MessageView:
        """Return a view that no handler has had, for an attempt with the delivery in flight."""
        if self.view.over:
            self.view = view_of(self.delivery, seen=True)
        return self.view


def view_of(delivery: Delivery, *, seen: bool) -> MessageView:
    # RabbitMQ promises that what is not redelivered was seen by nobody. A delay queue and a lane
    # give a message back as a new one, and handlers look for duplicates by that promise.
    headers: Any = strip(original(delivery).headers)
    return MessageView(delivery.message, redelivered=seen or delivery.redelivered, headers=headers)


def original(delivery: Delivery) -> Message:
    """Return a message with what its source queue said of it, which no other queue knows."""
    message = delivery.message
    if not delivery.returned or was_moved(message) or not delivery.counts_returns:
        return message
    headers = {_DELIVERY_COUNT: delivery.returned, **message.headers}
    return dataclasses.replace(message, headers=headers)
