"""The server's half of exactly once: each idempotency key's work is done once.

`idempotent` makes an interceptor. It claims a call's key in the transaction that the handler works
in, and commits key, reply and effects together before anything is sent.
"""

from fusewire._key_text import IDEMPOTENCY_TRAILER
from fusewire._public import publish
from fusewire.idempotency._aio import AioInterceptor
from fusewire.idempotency._asking import Action
from fusewire.idempotency._idempotent import aio_idempotent, idempotent
from fusewire.idempotency._operations import add_operations
from fusewire.idempotency._records import Answer, Record, State
from fusewire.idempotency._refusals import Reason
from fusewire.idempotency._resolving import NOT_MADE, NotMade
from fusewire.idempotency._settings import FINAL
from fusewire.idempotency._sqlite import SQLiteStore
from fusewire.idempotency._store import MissingTableError, NoTransactionError

__all__ = [
    "FINAL",
    "IDEMPOTENCY_TRAILER",
    "NOT_MADE",
    "Action",
    "AioInterceptor",
    "Answer",
    "MissingTableError",
    "NoTransactionError",
    "NotMade",
    "Reason",
    "Record",
    "SQLiteStore",
    "State",
    "add_operations",
    "aio_idempotent",
    "idempotent",
]

publish(__name__, __all__)
