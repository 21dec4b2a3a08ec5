"""What all stores can do besides serving calls: the current transaction, the table, its records."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from fusewire._validation import COUNT, check, check_text
from fusewire.idempotency._records import Identity, Record, stored_key
from fusewire.idempotency._requests import RequestCounts
from fusewire.idempotency._resolving import NotMade, check_made, resolution
from fusewire.idempotency._settings import WEEK
from fusewire.idempotency._sql import identity_parameters, read_record
from fusewire.idempotency._store import (
    AioTransaction,
    MissingTableError,
    Rows,
    Transaction,
    Trouble,
    current,
    enter,
    leave,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fusewire.idempotency._core import Core
    from fusewire.idempotency._sql import Parameters, Sql

_WAIT = 10.0
"""Seconds that what is not part of a call waits for a lock."""

_NOBODY: Parameters = {"scope": "", "method": "", "key": ""}


class _Common(ABC):
    """What a store has whatever its kind.

    Args:
        sql: the statements for its table.

    Attributes:
        requests: what became of its requests.
    """

    def __init__(self, sql: Sql) -> None:
        self.sql = sql
        self.requests = RequestCounts()
        self._cores: list[Core] = []

    def declare(self, core: Core) -> None:
        """Note that an interceptor declares its methods with this store."""
        self._cores.append(core)
        self.requests.expect(core.methods.exact)

    def core_of(self, method: str) -> Core | None:
        """Return what was agreed for a method, None if it is not declared with this store.

        Where two servers of this process declare it, the later one's word counts.
        """
        return next((core for core in reversed(self._cores) if method in core.methods), None)

    def request_counts(self) -> dict[tuple[str, str], int]:
        """Return how many requests there were, by method and result, for metrics.

        Those of all servers and consumers of this process that were made with this store. A
        consumer's method is ``consumer:`` and its name.
        """
        return self.requests.read()

    @property
    def ddl(self) -> str:
        """The statements that create the table and its index, as text.

        Nothing here ever executes them: put them into your migrations.
        """
        return self.sql.ddl

    def current(self) -> Any:
        """Return the transaction of the call that the caller is a handler of.

        What it is depends on the store: a session, or the driver's connection. All that is done
        with it is committed together with the call's key and reply, before the reply is sent.

        Raises:
            NoTransactionError: there is none: this is not the thread or task of a handler of a
                method that is declared with this store, or its effects are declared elsewhere.
        """
        return current(self)

    @abstractmethod
    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error of the driver means."""

    def _missing(self, error: BaseException) -> MissingTableError:
        return MissingTableError(
            f"the table {self.sql.name} cannot be read: {error}. If it is not there, create it "
            f"with:\n{self.sql.ddl}"
        )

    def _resolution(
        self, rows: Rows, made: bytes | NotMade, named: Parameters, keep: float
    ) -> tuple[str, Parameters] | None:
        now = _now_ms()
        until = now + round(keep * 1000)
        return resolution(
            self.sql, read_record(rows[0]), made, named, now_ms=now, expires_at_ms=until
        )

    def _named(self, method: str, key: str, scope: str) -> Parameters:
        check_text("method", method)
        check_text("key", key)
        return identity_parameters(Identity(scope, method, stored_key(key)))


class SyncStore(_Common):
    """The root of the stores for `grpc.server`.

    Attributes:
        most_calls: how many calls can have a connection at a time; None for any number.
    """

    most_calls: int | None = None

    @abstractmethod
    def begin_transaction(self, wait: float) -> Transaction:
        """Begin a transaction that may claim a key, waiting for a lock at most `wait` seconds."""

    @contextlib.contextmanager
    def begin(self) -> Iterator[Any]:
        """Begin a transaction outside of a call, for tests and jobs: `current` then returns it.

        It is committed when the block ends, and rolled back if it raises. No key is claimed.
        """
        transaction = self.begin_transaction(_WAIT)
        try:
            transaction.begin()
            handle = transaction.lend()
            entering = enter("", self, handle)
            try:
                yield handle
            finally:
                leave(entering)
            transaction.settle()
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise

    def check_table(self) -> None:
        """Check that the table is there.

        Raises:
            MissingTableError: it is not, or has not all columns.
        """
        transaction = self.begin_transaction(_WAIT)
        try:
            transaction.execute(self.sql.check, _NOBODY)
        except Exception as error:
            if self.trouble(error) is Trouble.UNAVAILABLE:
                raise
            raise self._missing(error) from error
        finally:
            transaction.rollback()

    def find(self, method: str, key: str, *, scope: str = "") -> Record | None:
        """Return the record of a key, None if there is none.

        Args:
            method: the method's path, ``/pkg.Service/Method``.
            key: the idempotency key.
            scope: whose key it is, where `idempotent` was given a `scope`.
        """
        rows = self._execute(self.sql.find, self._named(method, key, scope))
        return read_record(rows[0]) if rows else None

    def resolve(
        self, method: str, key: str, *, made: bytes | NotMade, scope: str = "", keep: float = WEEK
    ) -> bool:
        """Write down what is known of work that was in doubt.

        Args:
            method: the method's path.
            key: the idempotency key.
            made: the serialized reply of the work, which later calls get; or
                :data:`~fusewire.idempotency.NOT_MADE`, and then the next call does it.
            scope: whose key it is, where `idempotent` was given a `scope`.
            keep: seconds for which the reply is kept.

        Returns:
            Whether the work was in doubt. If not, nothing is changed.

        Raises:
            SettingsError: `made` is neither bytes nor NOT_MADE.
        """
        check_made(made)
        named = self._named(method, key, scope)
        transaction = self.begin_transaction(_WAIT)
        try:
            rows = transaction.execute(self.sql.find, named)
            statement = self._resolution(rows, made, named, keep) if rows else None
            done = statement is not None and bool(transaction.execute(*statement))
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        return done

    def forget(self, method: str, key: str, *, scope: str = "") -> bool:
        """Delete the record of a key, so that the next call with it runs.

        A record of work that was begun and has no end yet is not deleted.

        Returns:
            Whether one was deleted.
        """
        return bool(self._execute(self.sql.forget, self._named(method, key, scope)))

    def sweep(self, *, limit: int = 1000) -> int:
        """Delete records that have expired, the oldest first.

        Args:
            limit: how many at most.

        Returns:
            How many were deleted.
        """
        check("limit", limit, COUNT)
        return len(self._execute(self.sql.sweep, {"now": _now_ms(), "limit": limit}))

    def _execute(self, sql: str, parameters: Parameters) -> Rows:
        transaction = self.begin_transaction(_WAIT)
        try:
            rows = transaction.execute(sql, parameters)
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        return rows


class AioStore(_Common):
    """The root of the stores for `grpc.aio.server`."""

    @abstractmethod
    async def begin_transaction(self, wait: float) -> AioTransaction:
        """Begin a transaction that may claim a key, waiting for a lock at most `wait` seconds."""

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """Begin a transaction outside of a call, for tests and jobs: `current` then returns it.

        It is committed when the block ends, and rolled back if it raises. No key is claimed.
        """
        transaction = await self.begin_transaction(_WAIT)
        try:
            await transaction.begin()
            handle = transaction.lend()
            entering = enter("", self, handle)
            try:
                yield handle
            finally:
                leave(entering)
            await transaction.settle()
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise

    async def check_table(self) -> None:
        """Check that the table is there.

        Raises:
            MissingTableError: it is not, or has not all columns.
        """
        transaction = await self.begin_transaction(_WAIT)
        try:
            await transaction.execute(self.sql.check, _NOBODY)
        except Exception as error:
            if self.trouble(error) is Trouble.UNAVAILABLE:
                raise
            raise self._missing(error) from error
        finally:
            await transaction.rollback()

    async def find(self, method: str, key: str, *, scope: str = "") -> Record | None:
        """Return the record of a key, None if there is none; see :meth:`SyncStore.find`."""
        rows = await self._execute(self.sql.find, self._named(method, key, scope))
        return read_record(rows[0]) if rows else None

    async def resolve(
        self, method: str, key: str, *, made: bytes | NotMade, scope: str = "", keep: float = WEEK
    ) -> bool:
        """Write down what is known of work that was in doubt; see :meth:`SyncStore.resolve`."""
        check_made(made)
        named = self._named(method, key, scope)
        transaction = await self.begin_transaction(_WAIT)
        try:
            rows = await transaction.execute(self.sql.find, named)
            statement = self._resolution(rows, made, named, keep) if rows else None
            done = statement is not None and bool(await transaction.execute(*statement))
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
        return done

    async def forget(self, method: str, key: str, *, scope: str = "") -> bool:
        """Delete the record of a key, unless it was only begun; see :meth:`SyncStore.forget`."""
        return bool(await self._execute(self.sql.forget, self._named(method, key, scope)))

    async def sweep(self, *, limit: int = 1000) -> int:
        """Delete records that have expired; see :meth:`SyncStore.sweep`."""
        check("limit", limit, COUNT)
        return len(await self._execute(self.sql.sweep, {"now": _now_ms(), "limit": limit}))

    async def _execute(self, sql: str, parameters: Parameters) -> Rows:
        transaction = await self.begin_transaction(_WAIT)
        try:
            rows = await transaction.execute(sql, parameters)
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
        return rows


def _now_ms() -> int:
    return int(time.time() * 1000)
