"""Faults to put a consumer through, and the ledger that tells what they did to its messages."""

from fusewire.testing.faults.ledger import Account, LossLedger, Place

__all__ = ["Account", "LossLedger", "Place"]
