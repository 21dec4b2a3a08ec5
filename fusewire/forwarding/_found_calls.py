"""What is known of a call that somebody asks about, and what became of its cancellation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fusewire.forwarding._server_word import ServerWord  # noqa: TC001 - see fusewire/_public.py


class CallPlace(StrEnum):
    """Where a queued call is."""

    WAITING = "waiting"
    """It waits to be made, in a lane or for its next attempt."""
    IN_FLIGHT = "in-flight"
    """A forwarder has it: it is being sent, or is about to be."""
    DEAD = "dead"
    """It is in the dead queue, and a person decides."""
    NOT_HERE = "not-here"
    """It is not in the queues: it has ended, was never stored, or waits in a lane of others."""
    UNKNOWN = "unknown"
    """Nobody knows: the broker cannot look up a message, or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCall:
    """What is known of a call at this moment.

    Attributes:
        place: where it is queued.
        server: what its server says; None if that was not asked.
        why: why something of that is not known; else empty.
    """

    place: CallPlace
    server: ServerWord | None = None
    why: str = ""


class CancelKind(StrEnum):
    """What became of a cancellation."""

    REMOVED = "removed"
    """The call waited, had never been sent, and has left its queue: it will not be made."""
    CANCELLED = "cancelled"
    """The server has cancelled its key: it was not made as far as its records reach, and will not
    be. If a forwarder sends it, it is settled as ``cancelled``."""
    TOO_LATE = "too-late"
    """The server has begun or answered it; `server` says how it stands."""
    NOT_CANCELLED = "not-cancelled"
    """Nothing was changed, and it may still be made."""
    UNKNOWN = "unknown"
    """Whether it is cancelled is not known. To cancel it again is safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """What became of a cancellation.

    Attributes:
        kind: what.
        place: where the call was queued before.
        server: what its server says; None if that was not asked.
        why: why it is not cancelled, or why that is not known; empty where `place` or `server` says
            it.
    """

    kind: CancelKind
    place: CallPlace
    server: ServerWord | None = None
    why: str = ""
