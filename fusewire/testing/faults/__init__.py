"""Faults for consumers, and a ledger that accounts for every message."""

from fusewire._public import publish
from fusewire.testing.faults._counting import count_queues
from fusewire.testing.faults._journal import Journal
from fusewire.testing.faults._kill_points import (
    Await,
    Side,
    arm,
    awaits_of,
    die,
    disarm,
    find_awaits,
    watch,
)
from fusewire.testing.faults._ledger import Account, LossLedger, Place
from fusewire.testing.faults._proxy import Drop, FaultProxy

__all__ = [
    "Account",
    "Await",
    "Drop",
    "FaultProxy",
    "Journal",
    "LossLedger",
    "Place",
    "Side",
    "arm",
    "awaits_of",
    "count_queues",
    "die",
    "disarm",
    "find_awaits",
    "watch",
]

publish(__name__, __all__)
