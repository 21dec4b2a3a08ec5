"""What a source that keeps its order remembers over a pause; no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.brokers import Message
    from fusewire.parking._history import History

_MOST_KEPT = 100


class OutageProbe:
    """Whether one message is tried at a time, and whether the first of them stands aside.

    After a pause it is one at a time, until the circuit has closed. A message may itself be what
    opens the circuit. So when `patience` probes have failed in a row, the message in front lets
    another be the next probe. If that closes the circuit, the one in front is tried where its
    failures count; if not, it is the next probes itself again.

    Args:
        patience: failed probes in a row, after which the first stands aside once.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._failed = 0
        self._outage: str | None = None
        self.had_outage = False
        """Whether there was an outage at any time."""
        self.yields_turn = False
        """Whether the first message that comes is to let others go before it."""

    @property
    def outage(self) -> str | None:
        """The dependency that was waited for last, until it is known to have recovered."""
        return self._outage

    @outage.setter
    def outage(self, dependency: str) -> None:
        self._outage = dependency
        self.had_outage = True

    def begin(self) -> None:
        """Begin to consume, for the first time or after a pause."""
        self.yields_turn = self._failed >= self._patience

    def failed(self) -> None:
        """Count a probe that failed."""
        self._failed = 0 if self.yields_turn else self._failed + 1

    def succeeded(self, *, closed: bool) -> None:
        """Note a success, and whether the circuit that was waited for is closed by now."""
        self._failed = 0
        if closed:
            self._outage = None


class RetainedHistories:
    """The failures of messages that went back to their queue, which cannot carry them."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Message, History]] = deque(maxlen=_MOST_KEPT)

    def keep(self, message: Message, history: History) -> None:
        """Remember the record of a message that goes back."""
        self._kept.append((message, history))

    def recall(self, message: Message) -> History | None:
        """Return the record of a message that has come again, and forget it."""
        for kept in self._kept:
            if kept[0] == message:
                self._kept.remove(kept)
                return kept[1]
        return None
