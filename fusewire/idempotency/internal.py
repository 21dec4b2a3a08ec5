"""What :mod:`fusewire.inbox` is built of, besides the public names of this package."""

from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._claiming import CLAIM_BYTES, Claimed, Failed, Found, Taken, take
from fusewire.idempotency._decisions import OK, Doubt, Refuse, Replay, Resume, on_record
from fusewire.idempotency._fingerprint import fingerprint_of
from fusewire.idempotency._performing import AioPerforming, Performing
from fusewire.idempotency._records import NEVER, Identity, stored_key
from fusewire.idempotency._refusals import REPLAYED
from fusewire.idempotency._requests import FAILED, MADE
from fusewire.idempotency._settings import KEEP, WEEK
from fusewire.idempotency._sql import answer_parameters, identity_parameters
from fusewire.idempotency._steps import Commit, Execute, Handle, Rollback, Step
from fusewire.idempotency._store import AioTransaction, Entering, Transaction, Trouble, enter, leave
from fusewire.idempotency._sweeping import Due, aio_sweep_batches, sweep_batches

__all__ = [
    "CLAIM_BYTES",
    "FAILED",
    "KEEP",
    "MADE",
    "NEVER",
    "OK",
    "REPLAYED",
    "WEEK",
    "AioPerforming",
    "AioStore",
    "AioTransaction",
    "Claimed",
    "Commit",
    "Doubt",
    "Due",
    "Entering",
    "Execute",
    "Failed",
    "Found",
    "Handle",
    "Identity",
    "Performing",
    "Refuse",
    "Replay",
    "Resume",
    "Rollback",
    "Step",
    "SyncStore",
    "Taken",
    "Transaction",
    "Trouble",
    "aio_sweep_batches",
    "answer_parameters",
    "enter",
    "fingerprint_of",
    "identity_parameters",
    "leave",
    "on_record",
    "stored_key",
    "sweep_batches",
    "take",
]
