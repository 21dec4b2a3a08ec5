"""A server on each store, with a database of the test's own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_places import PLACES, Database, Place, make_database
from tests.support.idempotent_server import Loop, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """Provide the event loop of all asyncio servers."""
    made = Loop()
    yield made
    made.close()


@pytest.fixture(params=PLACES, ids=str)
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


@pytest.fixture
def serve(place: Place, database: Database, loop: Loop) -> Iterator[Callable[..., Server]]:
    """Provide a function that starts a server on the store, with settings of `idempotent`."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Server:
            return stack.enter_context(Server(place, database, loop, **settings))

        yield start


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """Provide a server on the store."""
    return serve()
