"""The turning points of an outage, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {
    "client opened": "payments: the circuit opens",
    "client parked": "payments: the first is parked",
    "last client closed": "payments: the circuit is closed again",
    "client replayed": "payments: the first parked one is made",
    "last client replayed": "payments: the last parked one is made",
    "orders opened": "orders: the circuit opens",
    "orders parked": "orders: the first is parked",
    "last orders closed": "orders: the circuit is closed again",
    "orders replayed": "orders: the first parked one is made",
    "last orders replayed": "orders: the last parked one is made",
}


def moments_in_words(moments: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return a tally's moments with what to call them."""
    return [(moments[key], words) for key, words in _WORDS.items() if key in moments]
