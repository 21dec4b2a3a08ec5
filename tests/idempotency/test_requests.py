"""What becomes of requests is counted by method and result, for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.idempotency._requests import OTHER, RequestCounts
from tests.support.idempotent_client import CHARGE, seen
from tests.support.idempotent_places import SYNC_AND_AIO
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_server import Loop, Server

both = pytest.mark.parametrize("place", SYNC_AND_AIO, ids=["sync", "aio"])


def counted(server: Server) -> dict[str, int]:
    """Return the results that there were, and how often."""
    counts = server.store.request_counts()
    assert {method for method, _ in counts} == {CHARGE}
    return {result: count for (_, result), count in counts.items() if count}


@both
def test_requests_are_counted_by_what_became_of_them(serve: Callable[..., Server]) -> None:
    server = serve(max_reply=1000)
    server.ask("ok", "a")
    server.ask("ok", "a")
    assert counted(server) == {"made": 1, "replayed": 1}
    server.ask("abort:NOT_FOUND", "b")
    server.ask("abort:NOT_FOUND", "b")
    assert counted(server) == {"made": 1, "refused": 1, "replayed": 2}
    for what in ("abort:UNAVAILABLE", "raise", "unserializable"):
        server.ask(what, what)
    server.ask("ok", "c", key="a")
    server.ask("large:2000", "d")
    server.ask("ok", "e", key=None)
    server.ask("raise", "f", key=None)
    assert counted(server) == {
        "made": 1,
        "replayed": 2,
        "refused": 1,
        "failed": 3,
        "key-reused": 1,
        "reply-too-large": 1,
        "without-key": 2,
    }


@both
def test_what_is_refused_before_the_handler_runs_is_counted_too(
    serve: Callable[..., Server],
) -> None:
    server = serve(required=True)
    server.ask("ok", "a", key=None)
    server.ask("ok", "b", metadata=(("fusewire-first-sent-ms", "1"),))
    assert counted(server) == {"key-missing": 1, "stale-key": 1}


@both
def test_work_in_doubt_is_counted(serve: Callable[..., Server]) -> None:
    server = serve(effects="elsewhere")
    server.ask("raise", "a")
    server.ask("raise", "a")
    assert counted(server) == {"failed": 1, "in-doubt": 1}


@both
def test_a_second_call_during_the_first_is_counted(serve: Callable[..., Server]) -> None:
    server = serve(wait=0.1)
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    server.ask("slow", "a")
    assert counted(server) == {"busy": 1}
    server.script.go_on.set()
    assert seen(first).code == "OK"
    assert counted(server) == {"busy": 1, "made": 1}


@both
def test_what_is_made_when_its_caller_has_gone_is_counted_as_made(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    call = server.start("slow", "a")
    assert server.script.begun.wait(20)
    call.cancel()
    assert seen(call).code == "CANCELLED"
    assert counted(server) == {}
    server.script.go_on.set()
    until_sync(lambda: counted(server) == {"made": 1}, "the count")


@pytest.mark.parametrize("place", [place for place in SYNC_AND_AIO if place.aio], ids=str)
def test_what_is_cut_off_is_counted_as_failed(serve: Callable[..., Server], loop: Loop) -> None:
    server = serve()
    call = server.start("slow", "a")
    assert server.script.begun.wait(20)

    async def cut_off() -> None:
        (task,) = server.interceptor._tasks
        task.cancel()

    loop.run(cut_off())
    until_sync(lambda: counted(server) == {"failed": 1}, "the count")
    call.cancel()


@both
def test_the_usual_results_of_a_method_begin_at_0(serve: Callable[..., Server]) -> None:
    counts = serve().store.request_counts()
    assert set(counts.values()) == {0}
    usual = {"made", "replayed", "failed", "in-progress", "in-doubt", "key-reused"}
    assert {result for _, result in counts} == usual


def test_a_pattern_with_any_number_of_methods_has_few_labels() -> None:
    counts = RequestCounts()
    for number in range(1000):
        counts.count(f"/pkg.Service/Method{number}", "made")
    counts.count("/pkg.Service/Method0", "made")
    found = counts.read()
    methods = {method for method, _ in found}
    assert len(methods) == 201
    assert found["/pkg.Service/Method0", "made"] == 2
    assert found[OTHER, "made"] == 800
