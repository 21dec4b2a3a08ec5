"""Records are deleted when they have expired, beside the calls or when somebody asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.idempotency._sweeping import Due
from fusewire.testing import FakeClock
from tests.support.idempotent_client import CHARGE
from tests.support.idempotent_places import SYNC_AND_AIO
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_server import Server

both = pytest.mark.parametrize("place", SYNC_AND_AIO, ids=["sync", "aio"])


def test_forget_and_sweep_delete_records(serve: Callable[..., Server]) -> None:
    server = serve()
    for key in ("1", "2", "3"):
        server.ask("ok", "a", key=key)
    assert server.run(server.store.forget, CHARGE, "1") is True
    assert server.run(server.store.forget, CHARGE, "1") is False
    assert server.run(server.store.sweep) == 0
    server.database.execute(f"UPDATE {server.database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    assert server.run(server.store.sweep, limit=1) == 1
    assert server.run(server.store.sweep) == 1
    assert server.database.records() == 0


@both
def test_expired_records_are_swept_beside_the_calls(serve: Callable[..., Server]) -> None:
    server = serve(sweep=0.01)
    for key in ("1", "2", "3"):
        server.ask("ok", "a", key=key)
    server.database.execute(f"UPDATE {server.database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    until_sync(lambda: _is_left_alone(server, "4"))


def _is_left_alone(server: Server, key: str) -> bool:
    return server.ask("ok", "a", key=key).code == "OK" and server.database.records() == 1


@both
def test_a_sweep_that_fails_is_logged_and_tried_again(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(sweep=0.01)
    sql = server.store.sql.sweep
    server.store.sql.sweep = "no SQL"
    until_sync(lambda: server.ask("ok", "a").code == "OK" and "sweeping expired" in caplog.text)
    server.store.sql.sweep = sql
    server.database.execute(f"UPDATE {server.database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    until_sync(lambda: _is_left_alone(server, "b"))


def test_a_sweep_is_due_once_in_its_time() -> None:
    clock = FakeClock()
    due = Due(60.0, clock)
    assert not due.now()
    clock.advance(60.0)
    assert (due.now(), due.now()) == (True, False)
    clock.advance(59.0)
    assert not due.now()
    never = Due(None, clock)
    clock.advance(1e9)
    assert not never.now()
