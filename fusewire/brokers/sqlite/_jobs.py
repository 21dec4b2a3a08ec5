"""Jobs, and how those of one transaction are run."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers.sqlite._openfile import OpenFile
    from fusewire.brokers.sqlite._store import Store

T = TypeVar("T")


@dataclass(slots=True)
class Job(Generic[T]):
    """One operation and what came of it.

    Attributes:
        run: the operation.
        reads: whether it only reads. It then holds up no other process: to count 200,000 messages
            takes 20 ms.
        finds_due: whether it has to find what is due by now.
        result: what it returned.
        error: what it raised.
    """

    run: Callable[[Store], T]
    reads: bool = False
    finds_due: bool = True
    result: T | None = None
    error: Exception | None = None


class LoneJobError(Exception):
    """The only job of a transaction raised `error`, which is its caller's."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def run_each(jobs: list[Job[Any]], file: OpenFile) -> None:
    """Run jobs that share a transaction, each in a savepoint; one alone needs none.

    Raises:
        LoneJobError: the only one has failed.
        sqlite3.Error: the file, or what one wants to store, is at fault.
    """
    if len(jobs) == 1:
        _run_alone(jobs[0], file)
        return
    for job in jobs:
        job.error = None  # of a first run in a larger group
        file.connection.execute("SAVEPOINT job")
        try:
            job.result = job.run(file.store)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 (it is its caller's, and raised there)
            job.error = error
            file.connection.execute("ROLLBACK TO job")
        file.connection.execute("RELEASE job")


def _run_alone(job: Job[Any], file: OpenFile) -> None:
    """Run a job without a savepoint, which costs as much as an insert: all is undone if it fails.

    Raises:
        LoneJobError: it has failed.
    """
    job.error = None
    try:
        job.result = job.run(file.store)
    except sqlite3.Error:
        raise
    except Exception as error:
        raise LoneJobError(error) from error
