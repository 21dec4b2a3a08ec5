"""A consumer with an inbox, as a process of its own that is killed at a point of a message.

``inbox_worker.py ADDRESS QUEUE STORE DATABASE [POINT]`` consumes QUEUE until it has handled a
message, and then ends with 0. With a POINT it kills itself there: before or after the effect,
before or after the commit that remembers the message, which is before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusewire.idempotency._sql import Dialect
from fusewire.inbox import aio_once, once
from fusewire.parking import ParkingConsumer
from tests.support.idempotent_places import PLACES, Database, finished
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from tests.support.idempotent_places import Place

POINTS = ("before-effect", "after-effect", "before-commit", "after-commit")
_ROOT = Path(__file__).parents[2]


def start(
    address: str, queue: str, place: Place, database: Database, point: str = ""
) -> KeptProcess:
    """Start one."""
    program = [sys.executable, "-m", "tests.support.inbox_worker", address, queue, place.name]
    return KeptProcess([*program, json.dumps(asdict(database)), point], cwd=_ROOT)


async def run(address: str, queue: str, name: str, described: str, point: str) -> None:
    """Consume until a message is handled, or until the point."""
    (place,) = (place for place in PLACES if place.name == name)
    given = json.loads(described)
    database = Database(Dialect(given["kind"]), given["address"], given["schema"])
    store, close = await finished(place.open(database))

    def reach(here: str) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def enter(message: Any) -> Any:
        reach("before-effect")
        sql = f"INSERT INTO {database.ledger} VALUES ('{message.body.decode()}')"  # noqa: S608 - ours
        return place.execute(store.current(), sql)

    async def aio_handle(message: Any) -> None:
        await enter(message)
        reach("after-effect")

    def handle(message: Any) -> None:
        enter(message)
        reach("after-effect")

    wrap: Any = aio_once if place.aio else once
    wrapped = await finished(wrap(store, aio_handle if place.aio else handle, consumer="orders"))
    _reach_at_commits(store, reach, aio=place.aio)
    async with ParkingConsumer(address, queue=queue, handler=wrapped) as consumer:
        consumer.add_listener(lambda _: consumer.stop())
        await consumer.run()
    await finished(close())


def _reach_at_commits(store: Any, reach: Any, *, aio: bool) -> None:
    begin_transaction = store.begin_transaction

    def reaching(transaction: Any) -> Any:
        commit = transaction.commit

        async def aio_commit(*last: Any) -> Any:
            reach("before-commit")
            done = await commit(*last)
            reach("after-commit")
            return done

        def sync_commit(*last: Any) -> Any:
            reach("before-commit")
            done = commit(*last)
            reach("after-commit")
            return done

        transaction.commit = aio_commit if aio else sync_commit
        return transaction

    async def aio_begin(wait: float) -> Any:
        return reaching(await begin_transaction(wait))

    def sync_begin(wait: float) -> Any:
        return reaching(begin_transaction(wait))

    store.begin_transaction = aio_begin if aio else sync_begin


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
