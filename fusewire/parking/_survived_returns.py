"""Which returns of a message this process has survived, so that they were no crash of its own.

A broker counts every return: of crashes, and of closed channels, dropped connections and stops.
While a process runs on, what it had in flight was returned for another reason than its end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fusewire.brokers import Message

_MOST_REMEMBERED = 10_000
"""Messages that are remembered, those that went back last."""


class _Returnable(Protocol):
    """What is asked of a delivery."""

    @property
    def message(self) -> Message:
        """The message as it was stored."""

    @property
    def returned(self) -> int:
        """How often it has come back unsettled."""


class SurvivedReturns:
    """Remembers what went back to the broker, for when it is delivered here again."""

    def __init__(self) -> None:
        # For each message the broker's count when it went back, and how many of these returns
        # this process has survived, or were no crash for another reason.
        self._returns: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def note(self, delivery: _Returnable) -> None:
        """Note that `delivery` goes back, or is lost, while this process runs on."""
        self._remember(_key(delivery), delivery.returned, self._survived(delivery))

    def excuse(self, delivery: _Returnable) -> None:
        """Count no return of `delivery` up to now: an outage explains them, here or elsewhere."""
        self._remember(_key(delivery), delivery.returned, delivery.returned)

    def knows(self, delivery: _Returnable) -> bool:
        """Return whether `delivery` was noted or excused before."""
        return _key(delivery) in self._returns

    def unexplained(self, delivery: _Returnable) -> int:
        """Return how often `delivery` came back that may have been the end of a process."""
        return delivery.returned - self._survived(delivery)

    def _remember(self, key: int, returned: int, survived: int) -> None:
        self._returns[key] = (returned, survived)
        self._returns.move_to_end(key)
        if len(self._returns) > _MOST_REMEMBERED:
            self._returns.popitem(last=False)

    def _survived(self, delivery: _Returnable) -> int:
        known = self._returns.get(_key(delivery))
        if known is None:
            return 0
        returned, survived = known
        # One of the returns since then is the one that was noted.
        return survived + (delivery.returned > returned)


def _key(delivery: _Returnable) -> int:
    # Two equal messages may be taken for each other. Then a suspicion comes one return later.
    message = delivery.message
    return hash((message.message_id, message.body))
