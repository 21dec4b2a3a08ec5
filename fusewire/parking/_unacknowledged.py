"""What this process has done or is doing with messages that are the broker's again.

A handler that takes longer than the broker waits for it ends well, and cannot be acknowledged. The
broker delivers the message again, and again it takes too long. So what was done is remembered.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Message
    from fusewire.parking._history import History

_MOST_REMEMBERED = 1000
_REMEMBERED_FOR = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Ended:
    """A handler that ended here, and whose message could not be acknowledged.

    Attributes:
        message: as it was delivered.
        history: its history after that.
        done: whether the handler is done with it; else it is only known to have ended.
        until: when it is forgotten, in monotonic seconds.
        answer: what a forwarder's server had answered.
    """

    message: Message
    history: History
    done: bool
    until: float
    answer: object = None


class Unacknowledged:
    """Remembers messages whose handler runs or ended here, for when they are delivered again.

    Messages are compared by all that is in them: one id with two bodies makes two messages.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: dict[int, Message] = {}
        self._ended: deque[Ended] = deque(maxlen=_MOST_REMEMBERED)

    def begin(self, attempt: object, message: Message) -> None:
        """Note that `attempt` calls the handler with `message`."""
        self._running[id(attempt)] = message

    def end(self, attempt: object) -> None:
        """Note that the handler that `attempt` called has ended."""
        del self._running[id(attempt)]

    def is_running(self, message: Message) -> bool:
        """Return whether the handler works on an equal message."""
        return message in self._running.values()

    def keep(
        self, message: Message, history: History, *, done: bool, answer: object = None
    ) -> None:
        """Remember that the handler of `message` ended here, without an acknowledgement."""
        self._ended.append(Ended(message, history, done, self._now() + _REMEMBERED_FOR, answer))

    def recall(self, message: Message) -> Ended | None:
        """Return how the handler of an equal message ended here, once; None if it did not."""
        while self._ended and self._ended[0].until < self._now():
            self._ended.popleft()
        for ended in self._ended:
            if ended.message == message:
                self._ended.remove(ended)
                return ended
        return None
