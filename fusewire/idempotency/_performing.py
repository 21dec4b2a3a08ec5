"""Performs the steps of a sequence on a store: once for sync, once for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from fusewire.idempotency._steps import Begin, Commit, Execute, Rollback, Undo

if TYPE_CHECKING:
    from collections.abc import Generator

    from fusewire.idempotency._base import AioStore, SyncStore
    from fusewire.idempotency._steps import Step
    from fusewire.idempotency._store import AioTransaction, Transaction

T = TypeVar("T")

_NOT_BEGUN = "no transaction has begun"


class Performing:
    """Performs steps that are the store's, one transaction at a time.

    Args:
        store: the store.
        wait: seconds that a transaction waits for a lock.
    """

    def __init__(self, store: SyncStore, wait: float) -> None:
        self._store = store
        self._wait = wait
        self.transaction: Transaction | None = None

    def run(self, steps: Generator[Step, Any, T]) -> T:
        """Perform all steps, and return what the sequence returns."""
        try:
            step = next(steps)
            while True:
                try:
                    result = self.perform(step)
                except Exception as error:  # noqa: BLE001 - the sequence judges it
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            steps.close()
            self._end()

    def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        match step:
            case Begin(lazily):
                self.transaction = self._store.begin_transaction(self._wait)
                if not lazily:
                    self.transaction.begin()
            case Execute(sql, parameters):
                return self._begun.execute(sql, parameters)
            case Undo():
                return self._begun.undo()
            case Commit(last):
                if not self._begun.commit(last):
                    return False
                self.transaction = None
                return True
            case Rollback():
                self._end()
        return None

    def _end(self) -> None:
        """Roll back what is open."""
        if self.transaction is not None:
            transaction, self.transaction = self.transaction, None
            transaction.rollback()

    @property
    def _begun(self) -> Transaction:
        if self.transaction is None:
            raise RuntimeError(_NOT_BEGUN)
        return self.transaction


class AioPerforming:
    """A :class:`Performing` for asyncio."""

    def __init__(self, store: AioStore, wait: float) -> None:
        self._store = store
        self._wait = wait
        self.transaction: AioTransaction | None = None

    async def run(self, steps: Generator[Step, Any, T]) -> T:
        """Perform all steps, and return what the sequence returns."""
        try:
            step = next(steps)
            while True:
                try:
                    result = await self.perform(step)
                except Exception as error:  # noqa: BLE001 - the sequence judges it
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            steps.close()
            await self._end()

    async def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        match step:
            case Begin(lazily):
                self.transaction = await self._store.begin_transaction(self._wait)
                if not lazily:
                    await self.transaction.begin()
            case Execute(sql, parameters):
                return await self._begun.execute(sql, parameters)
            case Undo():
                return await self._begun.undo()
            case Commit(last):
                if not await self._begun.commit(last):
                    return False
                self.transaction = None
                return True
            case Rollback():
                await self._end()
        return None

    async def _end(self) -> None:
        """Roll back what is open."""
        if self.transaction is not None:
            transaction, self.transaction = self.transaction, None
            await transaction.rollback()

    @property
    def _begun(self) -> AioTransaction:
        if self.transaction is None:
            raise RuntimeError(_NOT_BEGUN)
        return self.transaction
