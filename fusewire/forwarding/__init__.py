"""Store-and-forward of unary gRPC calls: parked during an outage, made after it."""

from fusewire._public import publish
from fusewire.forwarding._call import UnreadableCallError
from fusewire.forwarding._encryption import Encryption, KeyRing
from fusewire.forwarding._fallback import OPERATION_ID_METADATA, PARKED_METADATA
from fusewire.forwarding._found_calls import CallPlace, CancelKind, Cancellation, FoundCall
from fusewire.forwarding._handle import ForwarderHandle
from fusewire.forwarding._limits import NotQueuedError
from fusewire.forwarding._outcome_kinds import CallStatus, Outcome, OutcomeKind
from fusewire.forwarding._outcome_messages import UnreadableOutcomeError
from fusewire.forwarding._parked_calls import ParkedCalls
from fusewire.forwarding._policy import ParkPolicy
from fusewire.forwarding._receipt import Receipt
from fusewire.forwarding._server_word import ServerWord
from fusewire.forwarding._transport import ChannelClosedError

__all__ = [
    "OPERATION_ID_METADATA",
    "PARKED_METADATA",
    "CallPlace",
    "CallStatus",
    "CancelKind",
    "Cancellation",
    "ChannelClosedError",
    "Encryption",
    "ForwarderHandle",
    "FoundCall",
    "KeyRing",
    "NotQueuedError",
    "Outcome",
    "OutcomeKind",
    "ParkPolicy",
    "ParkedCalls",
    "Receipt",
    "ServerWord",
    "UnreadableCallError",
    "UnreadableOutcomeError",
]

publish(__name__, __all__)
