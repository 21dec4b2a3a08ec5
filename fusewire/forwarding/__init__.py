"""Store-and-forward of unary gRPC calls: parked during an outage, made after it."""

from fusewire._public import publish
from fusewire.forwarding.call import UnreadableCallError
from fusewire.forwarding.fallback import OPERATION_ID_METADATA, PARKED_METADATA
from fusewire.forwarding.parked_calls import ParkedCalls
from fusewire.forwarding.receipt import Receipt

__all__ = [
    "OPERATION_ID_METADATA",
    "PARKED_METADATA",
    "ParkedCalls",
    "Receipt",
    "UnreadableCallError",
]

publish(__name__, __all__)
