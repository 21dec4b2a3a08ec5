"""Consumers that remember what they have handled, on each store, with a broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message
from fusewire.idempotency._sql import Dialect
from fusewire.inbox import aio_once, once
from fusewire.parking import MessageEvent, ParkingConsumer, RetryPolicy
from fusewire.testing import InMemoryBroker
from tests.support.idempotent_places import PLACES, Database, Place, finished, make_database
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

QUICK = ("sqlite3", "aio session on sqlite")
"""Stores that run every row with all tests; the others have `make truth-table`."""


@pytest.fixture(
    params=[
        pytest.param(place, marks=[] if place.name in QUICK else [pytest.mark.long], id=place.name)
        for place in PLACES
    ]
)
def place(request: pytest.FixtureRequest) -> Place:
    """Provide each store in turn."""
    chosen: Place = request.param
    return chosen


@pytest.fixture
def database(place: Place, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Provide an empty database for the store."""
    url = None
    if place.kind is Dialect.POSTGRESQL:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.url
    made = make_database(place.kind, tmp_path, url)
    yield made
    made.drop()


class Shop:
    """A queue of orders, and consumers of it that enter each order into a ledger.

    Attributes:
        runs: how often the handler has begun, by the body of its message.
        events: what became of messages, of all consumers.
        behave: called when an order was entered, with the message; it may raise, and return
            something to await.
        store: where the consumers remember.
        registry: their circuits.
    """

    def __init__(
        self, place: Place, database: Database, store: Any, broker: InMemoryBroker
    ) -> None:
        self.place = place
        self.database = database
        self.store = store
        self.broker = broker
        self.runs: Counter[str] = Counter()
        self.events: list[MessageEvent] = []
        self.behave: Callable[[Any], Any] = lambda _: None
        self.registry = BreakerRegistry()

    async def send(self, body: str, operation: str | None = "a", *, queue: str = "orders") -> None:
        """Publish an order: `operation` is its message id."""
        await self.broker.publish(queue, Message(body=body.encode(), message_id=operation))

    @contextlib.asynccontextmanager
    async def consumer(
        self, *, queue: str = "orders", name: str = "orders", **options: Any
    ) -> AsyncIterator[ParkingConsumer]:
        """Run a consumer for the block. Some options are those of `once`."""
        given = {key: options.pop(key) for key in ("keep", "wait", "sweep") if key in options}
        settings = {"wait": 5.0, "consumer": name, **given}
        wrap = aio_once if self.place.aio else once
        handler = await finished(wrap(self.store, self.handler(), **settings))
        options.setdefault("retry", RetryPolicy(delays=(0.05, 0.2)))
        await self.broker.create_queue(queue)
        async with ParkingConsumer(
            self.broker, queue=queue, handler=handler, registry=self.registry, **options
        ) as consumer:
            consumer.add_listener(self.events.append)
            running = asyncio.create_task(consumer.run(handle_signals=False))
            try:
                yield consumer
            finally:
                consumer.stop()
                await asyncio.wait_for(running, 40)

    def handler(self) -> Callable[[Any], Any]:
        """Return a handler of the kind that the store is for."""

        async def aio(message: Any) -> None:
            await self._enter(message)
            if inspect.isawaitable(value := self.behave(message)):
                await value

        def sync(message: Any) -> None:
            self._enter(message)
            self.behave(message)

        return aio if self.place.aio else sync

    def execute(self, sql: str) -> Any:
        """Execute a statement in the transaction of the message."""
        return self.place.execute(self.store.current(), sql)

    async def change(self, sql: str) -> None:
        """Execute a statement beside the consumer, whose transactions end on this event loop."""
        await asyncio.to_thread(self.database.execute, sql)

    def _enter(self, message: Any) -> Any:
        body = message.body.decode()
        self.runs[body] += 1
        return self.execute(f"INSERT INTO {self.database.ledger} VALUES ('{body}')")  # noqa: S608 - ours

    async def ends(self, outcome: str, times: int = 1) -> list[MessageEvent]:
        """Wait until so many messages have ended so, and return how."""

        def found() -> list[MessageEvent]:
            return [event for event in self.events if event.outcome == outcome]

        await until(lambda: len(found()) >= times, f"{times} {outcome}: {self.events}")
        return found()

    def effects(self, body: str) -> int:
        return self.database.effects(body)

    @property
    def records(self) -> int:
        return self.database.records()


def first_time(shop: Shop, act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what does `act` when a message is handled first, and nothing later."""
    return lambda message: act(message) if shop.runs[message.body.decode()] == 1 else None


def raising(error: Exception) -> Callable[[Any], None]:
    def act(_: object) -> None:
        raise error

    return act


@pytest.fixture
async def shop(place: Place, database: Database) -> AsyncIterator[Shop]:
    """Provide a shop on the store."""
    store, close = await finished(place.open(database))
    async with InMemoryBroker() as broker:
        await broker.create_queue("orders")
        yield Shop(place, database, store, broker)
        broker.clear()
    await finished(close())
