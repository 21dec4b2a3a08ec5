"""How far a call has come whose failure a fallback may answer, in one word."""

from __future__ import annotations

from enum import Enum


class Stage(Enum):
    """How far a call has come: calls with one response and streams, on both kinds of channel.

    A call goes down this list, skips what does not concern it, and never goes up.
    """

    IN_FLIGHT = "in flight"
    """It has not ended, and a stream has given no message."""

    STREAMING = "streaming"
    """A stream has given a message, so no fallback will be asked, however the call ends."""

    UNDECIDED = "undecided"
    """It has ended, and whether its fallback is to answer is not known yet.

    On a sync channel, a reader is about to find out whether a message came before the end. On an
    asyncio channel, the status may change (see ``may_change`` in ``_aio``).
    """

    CLOSING = "closing"
    """It has ended and is about to be settled; no fallback will be asked."""

    FAILED = "failed"
    """The fallback is to answer, and has not been asked."""

    ASKING = "asking"
    """The fallback is being asked."""

    ANSWERING = "answering"
    """The fallback gives the messages of a stream."""

    ANSWERED = "answered"
    """The fallback has given all that it had to give."""

    CANCELLED = "cancelled"
    """Its user has cancelled the fallback."""

    ENDED = "ended"
    """As the call itself, or with the call's error because the fallback failed too."""

    @property
    def settled(self) -> bool:
        """Whether the call has said how the dependency is."""
        return self not in _UNSETTLED

    @property
    def answers(self) -> bool:
        """Whether what the user sees comes from the fallback, as far as is known."""
        return self in _ANSWERS

    @property
    def over(self) -> bool:
        """Whether the user sees that the call is over."""
        return self in _OVER

    @property
    def last(self) -> bool:
        """Whether the stage never changes again."""
        return self in _OVER and self is not Stage.CLOSING


_UNSETTLED = (Stage.IN_FLIGHT, Stage.STREAMING, Stage.UNDECIDED, Stage.CLOSING)
_ANSWERS = (Stage.FAILED, Stage.ASKING, Stage.ANSWERING, Stage.ANSWERED, Stage.CANCELLED)
_OVER = (Stage.CLOSING, Stage.ANSWERED, Stage.CANCELLED, Stage.ENDED)
