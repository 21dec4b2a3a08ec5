"""What the interceptors need of a database: a transaction, and what its errors mean.

A store is a thin adapter over a driver. It begins transactions, executes the SQL that is given, and
hands the handler what it works with. What is executed when is decided in
:mod:`fusewire.idempotency._flow`, for sync and asyncio stores alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from contextvars import Token

    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Execute

Rows = Sequence[Sequence[Any]]


class NoTransactionError(FusewireError, RuntimeError):
    """There is no transaction to hand out: this is no call of a declared method, or it has ended.

    Also where the method is declared with ``effects="elsewhere"``: its handler runs outside of any
    transaction.
    """


class MissingTableError(FusewireError):
    """The table of the idempotency keys is not there, or lacks a column.

    The message has the statement that creates it.
    """


class Trouble(Enum):
    """What an error of a database means for the call."""

    UNAVAILABLE = "unavailable"
    """It could not be reached, or the connection was lost."""
    BUSY = "busy"
    """The whole database is locked by another writer (SQLite)."""
    KEY_BUSY = "key-busy"
    """Another call holds the key."""
    CONFLICT = "conflict"
    """The transaction was rolled back because of another one, and may be tried again."""
    OTHER = "other"
    """Anything else: the transaction failed, and why is for people to read."""


class Transaction(Protocol):
    """A transaction. It ends with `commit` or `rollback`.

    It has begun, or begins with its first statement: that saves a round trip.
    """

    def begin(self) -> None:
        """Begin it now, if it has not begun: the first statement is not ours."""

    @property
    def is_open(self) -> bool:
        """Whether the handler has left it open."""

    def lend(self) -> Any:
        """Return what the handler works with, a session or a connection; called once."""

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        """Execute a statement and return its rows."""

    def settle(self) -> None:
        """Take it back from a handler that has succeeded; send what its session has not sent."""

    def undo(self) -> bool:
        """Take it back from a handler that has refused; roll back what it has not committed.

        Returns:
            Whether that was possible. If not, the whole transaction has to be rolled back.
        """

    def commit(self, last: Execute | None = None) -> bool:
        """Commit and release the connection. After an error, `rollback` releases it.

        Args:
            last: a statement that is executed before. Without a row, nothing is committed.

        Returns:
            Whether it was committed. If not, it is still to be rolled back.
        """

    def rollback(self) -> None:
        """Roll back and release the connection. Does not raise: a lost one has rolled back."""


class AioTransaction(Protocol):
    """A :class:`Transaction`, for asyncio."""

    async def begin(self) -> None:
        """Begin it now, if it has not begun."""

    @property
    def is_open(self) -> bool:
        """Whether the handler has left it open."""

    def lend(self) -> Any:
        """Return what the handler works with; called once."""

    async def execute(self, sql: str, parameters: Parameters) -> Rows:
        """Execute a statement and return its rows."""

    async def settle(self) -> None:
        """Take it back from a handler that has succeeded."""

    async def undo(self) -> bool:
        """Take it back from a handler that has refused."""

    async def commit(self, last: Execute | None = None) -> bool:
        """Commit and release the connection."""

    async def rollback(self) -> None:
        """Roll back and release the connection. Does not raise."""


class Entered:
    """A call that a handler is running for.

    Attributes:
        method: the method's path; empty outside of a call.
        store: the store that the method is declared with.
        handle: what the handler works with; None where the effects are elsewhere, or the call has
            ended.
        asked: whether the handler has asked for the transaction.
        outer: the call around it, if any.
    """

    __slots__ = ("asked", "handle", "method", "outer", "store")

    def __init__(self, method: str, store: object, handle: Any) -> None:
        self.method = method
        self.store = store
        self.handle = handle
        self.asked = False
        self.outer = _entered.get()

    def end(self) -> None:
        """Hand out nothing more, to whatever outlives the handler either."""
        self.handle = None


_entered: ContextVar[Entered | None] = ContextVar("fusewire_idempotency", default=None)


class Entering(NamedTuple):
    """What :func:`leave` needs."""

    entered: Entered
    token: Token[Entered | None]


def enter(method: str, store: object, handle: Any) -> Entering:
    """Make a call the current one of this context."""
    entered = Entered(method, store, handle)
    return Entering(entered, _entered.set(entered))


def leave(entering: Entering) -> None:
    """End what :func:`enter` has begun."""
    entering.entered.end()
    _entered.reset(entering.token)


def entered_method() -> str | None:
    """Return the method that a handler is running for in this context, None if there is none."""
    entered = _entered.get()
    return None if entered is None else entered.method


def current(store: object) -> Any:
    """Return what the handler works with, of the innermost call that is declared with `store`.

    Raises:
        NoTransactionError: there is none.
    """
    entered = _entered.get()
    while entered is not None and entered.store is not store:
        entered = entered.outer
    if entered is None:
        raise NoTransactionError(
            "there is no current transaction of this store: call current() in the handler of a "
            "method that is declared with it, in the handler's own thread or task, or within "
            "store.begin()"
        )
    if entered.handle is None:
        raise NoTransactionError(
            f"the call of {entered.method or 'store.begin()'} has no transaction (any more): it is "
            "declared with effects='elsewhere', or its handler has ended"
        )
    entered.asked = True
    return entered.handle
