"""What the commands take of this room, besides its public names."""

from fusewire.forwarding._reconciling import Deed, DoubtfulCall, Reconciled, Reconciling
from fusewire.forwarding._server_word import OF_THE_CALL, ServerWord, word_of

__all__ = [
    "OF_THE_CALL",
    "Deed",
    "DoubtfulCall",
    "Reconciled",
    "Reconciling",
    "ServerWord",
    "word_of",
]
