"""The steps of a call, as values: what is to be done, and how a handler has ended.

:mod:`fusewire.idempotency._flow` yields them, and the two interceptors perform them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fusewire.idempotency._decisions import Effects
    from fusewire.idempotency._records import Answer, Identity
    from fusewire.idempotency._sql import Parameters


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed for a set of methods; see `idempotent` for the meanings.

    Times are in milliseconds, except `wait`, in seconds.
    """

    effects: Effects
    keep_ms: int
    wait: float
    final: frozenset[int]
    most_bytes: int
    lease_ms: int
    rerun: bool
    ask: Callable[..., Any] | None


class Call(NamedTuple):
    """A call, as far as the sequence has to know it.

    Attributes:
        method: the method's path.
        key: its key as it was sent; None if it has none.
        identity: its identity; None if it has no key.
        fingerprint: the fingerprint of its request.
        first_sent_ms: when it was sent first; None if it does not say.
    """

    method: str
    key: str | None
    identity: Identity | None
    fingerprint: bytes
    first_sent_ms: int | None


class Answered(NamedTuple):
    """A handler has ended with a status.

    Attributes:
        answer: what its caller gets.
        reply: the reply as the handler returned it.
        is_open: whether it has left the transaction open.
    """

    answer: Answer
    reply: Any = None
    is_open: bool = True


class Raised(NamedTuple):
    """A handler has raised an exception, or what it left to be sent to the database has."""

    error: Exception


Ending = Answered | Raised


class Given(NamedTuple):
    """What the caller is given instead of the handler's own end: a stored answer, or a refusal."""

    answer: Answer
    result: str


Outcome = Answered | Raised | Given
"""How the call ends for its caller. The transaction has ended."""


# Steps. What each is answered with stands beside it.


class Begin(NamedTuple):
    """Begin a transaction; nothing.

    Attributes:
        lazily: whether a statement of ours follows, which may begin it.
    """

    lazily: bool = False


class Execute(NamedTuple):
    """Execute a statement in it; the rows."""

    sql: str
    parameters: Parameters


class Handle(NamedTuple):
    """Run the handler, in the transaction if there is one; the :class:`Ending`."""


class Undo(NamedTuple):
    """Roll back what the handler has not committed itself; whether the claim is still held."""


class Commit(NamedTuple):
    """Commit the transaction; whether that was done.

    Attributes:
        last: a statement that is executed before. Without a row, nothing is committed.
    """

    last: Execute | None = None


class Rollback(NamedTuple):
    """Roll back the transaction, if there is one; nothing. It does not fail."""


class Ask(NamedTuple):
    """Ask the user's function about work in doubt; an ending with a reply, or None."""

    function: Callable[..., Any]


Step = Begin | Execute | Handle | Undo | Commit | Rollback | Ask


Steps = Generator[Step, Any, Outcome]
