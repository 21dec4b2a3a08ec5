"""Looking for calls at a broker, and removing those that were never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from fusewire.errors import UnconfirmedError
from fusewire.forwarding._found_calls import CallPlace, CancelKind
from fusewire.forwarding._reconciling import DoubtfulCall
from fusewire.parking import MalformedMessageError
from fusewire.parking.internal import from_headers

if TYPE_CHECKING:
    from fusewire.brokers import Broker, FoundMessage, SearchableBroker, Topology
    from fusewire.errors import BrokerError
    from fusewire.forwarding._outcomes import CallReplies
    from fusewire.forwarding._server_question import Wanted

_TRIES = 3  # of a call that is moved while it is looked at

_CANNOT_LOOK = "this broker cannot look up a message by its id"
_MAY_BE_SENT = "it may have been sent, so only its server knows whether it was made"
_MOVES = "it was moved while it was looked at: try again"


class Seen(NamedTuple):
    """What is seen of a call at the broker.

    Attributes:
        place: where it is.
        first_sent_ms: no later than when it was first sent; None if it was not, or nobody knows.
        may_have_been_sent: whether it was, as far as is known here.
        why: why something of that is not known; else empty.
    """

    place: CallPlace
    first_sent_ms: int | None = None
    may_have_been_sent: bool = True
    why: str = ""


class Removal(NamedTuple):
    """What became of removing a call: REMOVED, NOT_CANCELLED or UNKNOWN, and what was seen."""

    kind: CancelKind
    seen: Seen


class CallSearch:
    """Searches the queues of calls.

    Args:
        topology: of the queue.
        replies: says what became of calls that are removed.
    """

    def __init__(self, topology: Topology, replies: CallReplies) -> None:
        self._topology = topology
        self._replies = replies

    async def look(self, call: Wanted, broker: Broker) -> Seen:
        """Return what is seen of a call.

        Raises:
            BrokerError: the broker does not answer.
        """
        if not broker.capabilities.searchable:
            return Seen(CallPlace.UNKNOWN, why=_CANNOT_LOOK)
        return _seen(await self._found(call, cast("SearchableBroker", broker)))

    async def remove(self, call: Wanted, broker: Broker) -> Removal:
        """Remove a call that waits, and was never sent.

        Raises:
            BrokerError: the broker does not answer.
        """
        if not broker.capabilities.searchable:
            return _left(Seen(CallPlace.UNKNOWN, why=_CANNOT_LOOK))
        searchable = cast("SearchableBroker", broker)
        seen = Seen(CallPlace.UNKNOWN)
        for _ in range(_TRIES):
            found = await self._found(call, searchable)
            seen = _seen(found)
            if seen.place is not CallPlace.WAITING:
                return _left(seen)
            if seen.may_have_been_sent:
                return _left(seen._replace(why=_MAY_BE_SENT))
            outcome = self._replies.of_removed([each.message for each in found])
            if await searchable.withdraw(found, outcome):
                return Removal(CancelKind.REMOVED, seen)
        return _left(seen._replace(why=_MOVES))

    async def _found(self, call: Wanted, broker: SearchableBroker) -> list[FoundMessage]:
        found = await broker.find(self._topology, call.operation_id)
        return [each for each in found if each.message.type == call.method]


def not_seen(error: BrokerError) -> Seen:
    """Return what is known when the broker does not answer."""
    return Seen(CallPlace.UNKNOWN, why=str(error))


def not_removed(error: BrokerError) -> Removal:
    """Return what is known when removing has failed."""
    doubtful = isinstance(error, UnconfirmedError)
    return Removal(CancelKind.UNKNOWN if doubtful else CancelKind.NOT_CANCELLED, not_seen(error))


def _left(seen: Seen) -> Removal:
    return Removal(CancelKind.NOT_CANCELLED, seen)


def _seen(found: list[FoundMessage]) -> Seen:
    """Return what copies of one call say together; there may be several."""
    if any(each.in_flight for each in found):
        place = CallPlace.IN_FLIGHT
    elif any(each.station.kind != "dead" for each in found):
        place = CallPlace.WAITING
    else:
        place = CallPlace.DEAD if found else CallPlace.NOT_HERE
    sent = [_first_sent(each) for each in found if _may_have_been_sent(each)]
    return Seen(
        place,
        min((when for when in sent if when is not None), default=None),
        may_have_been_sent=bool(sent) or not found,
    )


def _may_have_been_sent(found: FoundMessage) -> bool:
    try:
        history = from_headers(found.message, operation_id=found.message.message_id or "")
    except MalformedMessageError:
        return True
    # Earlier releases did not note when a call was first sent, so there must be no attempt either.
    return bool(
        found.redelivered
        or found.station.kind == "dead"
        or history.first_sent_ms is not None
        or history.reason == "failed"
        or history.attempts
        or history.outage_attempts
        or history.times_postponed
    )


def _first_sent(found: FoundMessage) -> int | None:
    try:
        history = from_headers(found.message, operation_id=found.message.message_id or "")
    except MalformedMessageError:
        return None
    return DoubtfulCall(history, found.message.type or "").first_sent_ms
