"""Rows of the truth table for a server that is killed in the middle of a call."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.idempotent_places import PLACES
from tests.support.idempotent_process import POINTS, ServerProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.idempotent_places import Database, Place

QUICK = ("sqlite3", "asyncpg")
"""Stores for which these rows are run with all tests; the others have `make truth-table`."""

each_store = pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place.name in QUICK else [pytest.mark.long], id=place.name)
        for place in PLACES
    ],
)


@pytest.fixture
def process(place: Place, database: Database) -> Iterator[ServerProcess]:
    """Provide a server process on the store."""
    with contextlib.closing(ServerProcess(place, database)) as started:
        yield started


@pytest.fixture
def elsewhere(place: Place, database: Database) -> Iterator[ServerProcess]:
    """Provide a server process whose effects are elsewhere, with a short lease."""
    started = ServerProcess(place, database, effects="elsewhere", lease=0.5)
    with contextlib.closing(started):
        yield started


@each_store
def test_a_kill_before_the_commit_leaves_nothing_and_after_it_everything(
    process: ServerProcess, database: Database
) -> None:
    for point in POINTS:
        committed = point == "after-commit"
        assert process.die(point, point).code == "UNAVAILABLE"
        process.start()
        assert database.effects(point) == int(committed)
        assert database.records() == int(committed)
        # Where nothing is left, another request may have the key, and this one kills nobody.
        answer = process.client.ask(f"kill:{point}" if committed else "ok", point)
        assert (answer.code, answer.word) == ("OK", "replayed" if committed else None)
        assert database.effects(point) == 1
        database.execute(f"DELETE FROM {database.keys}")  # noqa: S608 - ours


@each_store
def test_elsewhere_a_kill_leaves_a_doubt_when_the_lease_is_over(
    elsewhere: ServerProcess, database: Database
) -> None:
    for point, effects in (("before-effect", 0), ("after-effect", 1), ("before-commit", 1)):
        request = f"kill:{point}"
        elsewhere.die(point, point)
        elsewhere.start()
        answer = until_sync(lambda request=request, point=point: _final(elsewhere, request, point))
        assert answer == ("FAILED_PRECONDITION", "in-doubt")
        assert database.effects(point) == effects


def _final(server: ServerProcess, request: str, operation: str) -> tuple[str, str | None] | None:
    answer = server.client.ask(request, operation)
    return None if answer.word == "in-progress" else (answer.code, answer.word)
