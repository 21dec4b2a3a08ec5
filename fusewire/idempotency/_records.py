"""What is stored of a call: the key's identity, the state of the work, and the answer.

A record is one row of the table. It says that the work of a key was begun, and how it ended. Its
form has a number, :data:`FORMAT`, which stands in every row.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

FORMAT = 1
"""The number of the stored form."""

NEVER = 2**63 - 1
"""An `expires_at_ms` that never comes: the record of a call whose end is not known is kept until a
person decides, because it is all that stands between a clock and a second effect."""

LONGEST_KEY = 512
"""Characters of a key that are stored as they are. PostgreSQL's index takes 2,704 bytes."""

Trailers = tuple[tuple[str, str | bytes], ...]


class State(IntEnum):
    """What is known about the work of a key. The numbers are stored."""

    CLAIMED = 0
    """It was begun."""
    ANSWERED = 1
    """It is done, or was refused for good: every later call gets the stored answer."""
    CANCELLED = 2
    """It was cancelled by its key before it began: no later call does it."""


class Identity(NamedTuple):
    """The identity of the work: the table's primary key.

    Attributes:
        scope: whose key it is, where a server keeps its tenants apart; otherwise empty.
        method: the method's path.
        key: the key, as :func:`stored_key` returns it.
    """

    scope: str
    method: str
    key: str


class Answer(NamedTuple):
    """What the caller gets.

    Attributes:
        code: the number of the gRPC status.
        details: the status' text, in UTF-8.
        trailers: the trailing metadata.
        reply: the serialized reply; None unless the status is OK.
    """

    code: int
    details: bytes = b""
    trailers: Trailers = ()
    reply: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of everything that is stored of it, without the names of the columns."""
        return len(self.details) + len(encode_trailers(self.trailers)) + len(self.reply or b"")


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the table.

    Attributes:
        format: the number of its form.
        state: what is known about the work.
        claim: 16 random bytes of the call that began it: only that call may write its end.
        fingerprint: the digest of the request, see :mod:`fusewire.idempotency._fingerprint`.
        answer: the answer; None unless the state is ANSWERED.
        created_at_ms: when it was begun, in milliseconds since 1970.
        expires_at_ms: until when it is recognized; :data:`NEVER` while the end of the work is not
            known.
        lease_until_ms: until when the work may still be going on, if that was committed; None where
            key and effect are committed together.
    """

    format: int
    state: int
    claim: bytes
    fingerprint: bytes
    answer: Answer | None
    created_at_ms: int
    expires_at_ms: int
    lease_until_ms: int | None


def stored_key(key: str) -> str:
    """Return how a key is stored: as it is, or `*` and its SHA-256 if it is long or has a NUL.

    PostgreSQL stores no NUL. Keys of calls have none, but operation ids of messages may.
    """
    if len(key) <= LONGEST_KEY and "\0" not in key:
        return key
    return "*" + hashlib.sha256(key.encode()).hexdigest()


def encode_trailers(trailers: Trailers) -> bytes:
    """Return trailing metadata as JSON: pairs of a key and a string, or base64 in a list.

    The order is kept, and so are several values of one key.
    """
    if not trailers:
        return b""
    pairs = [
        [key, value if isinstance(value, str) else [base64.b64encode(value).decode()]]
        for key, value in trailers
    ]
    return json.dumps(pairs, separators=(",", ":")).encode()


def decode_trailers(data: bytes) -> Trailers:
    """Read what :func:`encode_trailers` has written."""
    if not data:
        return ()
    return tuple(
        (key, value if isinstance(value, str) else base64.b64decode(value[0]))
        for key, value in json.loads(data)
    )
