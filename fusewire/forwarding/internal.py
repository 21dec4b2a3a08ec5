"""What the commands take of this room, besides its public names."""

from fusewire.forwarding._reconciling import Deed, DoubtfulCall, Reconciled, Reconciling, Word

__all__ = ["Deed", "DoubtfulCall", "Reconciled", "Reconciling", "Word"]
