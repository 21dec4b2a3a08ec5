"""What went wrong between a consumer and its broker, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.errors import BrokerUnavailableError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.errors import BrokerError


class FaultCounts:
    """Counts on one event loop what any thread may read.

    Attributes:
        redelivered: deliveries that the broker had given out before.
    """

    def __init__(self) -> None:
        self.redelivered = 0
        self._moves_refused = dict.fromkeys(("refused", "unavailable", "unconfirmed"), 0)

    @property
    def moves_refused(self) -> Mapping[str, int]:
        """Moves of messages that failed, and calls that could not be stored, by why."""
        return self._moves_refused.copy()

    def note_refusal(self, error: BrokerError) -> None:
        """Count a move that failed with `error`."""
        why = "refused"
        if isinstance(error, BrokerUnavailableError):
            why = "unavailable"
        elif isinstance(error, UnconfirmedError):
            why = "unconfirmed"
        self._moves_refused[why] += 1
