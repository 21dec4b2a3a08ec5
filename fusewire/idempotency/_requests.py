"""What became of the requests of a store's methods and consumers, counted for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._locks import make_lock
from fusewire.idempotency._refusals import REPLAYED, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

MADE = "made"
"""The work was done, and its end was recorded."""
REFUSED = "refused"
"""The handler has refused for good, and the refusal was recorded."""
FAILED = "failed"
"""The handler has failed, and no answer was recorded."""
WITHOUT_KEY = "without-key"
"""The handler ran for a call without a key, which nobody could recognize."""

OTHER = "_other"
"""The method of requests whose own is one too many."""

_MOST_METHODS = 200
"""How many methods are counted by name: a pattern may have any number of them."""

# A series that appears with a value of 1 is a rise that no query sees. So the usual ones are there
# from the start.
_USUAL = (
    *(MADE, REPLAYED, FAILED),
    *(str(reason) for reason in (Reason.IN_PROGRESS, Reason.IN_DOUBT, Reason.KEY_REUSED)),
)


class RequestCounts:
    """Counts requests by method and result. One for each store, whose servers have many threads."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._methods: set[str] = set()
        self._counts: dict[tuple[str, str], int] = {}

    def expect(self, methods: Iterable[str]) -> None:
        """Begin the usual counts of `methods` at 0."""
        with self._lock:
            for method in methods:
                self._shown(method)

    def count(self, method: str, result: str) -> None:
        """Count a request."""
        with self._lock:
            labels = (self._shown(method), result)
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def read(self) -> dict[tuple[str, str], int]:
        """Return how many there were, by method and result."""
        with self._lock:
            return dict(self._counts)

    def _shown(self, method: str) -> str:
        """Return the name under which a method is counted; a new one has its usual counts then."""
        if method in self._methods:
            return method
        if len(self._methods) < _MOST_METHODS:
            self._methods.add(method)
        else:
            method = OTHER
        for result in _USUAL:
            self._counts.setdefault((method, result), 0)
        return method
