"""Other server interceptors, on either side of ours: OpenTelemetry's, and grpc-interceptor's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_interceptor import (
    AsyncExceptionToStatusInterceptor,
    AsyncServerInterceptor,
    ExceptionToStatusInterceptor,
    ServerInterceptor,
)
from opentelemetry.instrumentation.grpc import aio_server_interceptor, server_interceptor

from tests.support.idempotent_places import PLACES
from tests.support.idempotent_server import TRAILERS
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Server

BOTH = [place for place in PLACES if place.name in ("sqlite3", "aio session on sqlite")]

both = pytest.mark.parametrize("place", BOTH, ids=["sync", "aio"])
ours_is = pytest.mark.parametrize("ours", ["outer", "inner"])


class Looking(ServerInterceptor):
    """An interceptor that looks at replies, as users of grpc-interceptor write it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
        reply = method(request, context)
        self.seen.append(reply)
        return reply


class AioLooking(AsyncServerInterceptor):
    """The same for asyncio."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
        reply = await method(request, context)
        self.seen.append(reply)
        return reply


def beside(ours: str, other: Any) -> dict[str, Any]:
    """Return the setting of the tests' server that puts `other` on one side of ours."""
    return {"inside" if ours == "outer" else "outside": [other]}


@both
@ours_is
@pytest.mark.parametrize("other", ["opentelemetry", "grpc-interceptor"])
def test_the_truth_is_the_same_beside_other_interceptors(
    serve: Callable[..., Server], place: Place, ours: str, other: str
) -> None:
    looking: Any = AioLooking() if place.aio else Looking()
    if other == "opentelemetry":
        looking = aio_server_interceptor() if place.aio else server_interceptor()
    server = serve(**beside(ours, looking))
    for what, code in (
        ("ok", "OK"),
        ("abort:NOT_FOUND", "NOT_FOUND"),
        ("set_code:NOT_FOUND", "NOT_FOUND"),
        ("rich:NOT_FOUND", "NOT_FOUND"),
    ):
        first = server.ask(what, what)
        assert first.code == code
        assert server.ask(what, what).told == first.told
        assert server.script.runs[what] == 1
    for runs in (1, 2):
        assert server.ask("abort:UNAVAILABLE", "gone").code == "UNAVAILABLE"
        assert server.ask("raise", "bug").code == "UNKNOWN"
        assert server.script.runs["gone"] == server.script.runs["bug"] == runs
    other_request = server.ask("ok", "other", key="ok")
    assert (other_request.code, other_request.word) == ("INVALID_ARGUMENT", "key-reused")
    assert server.ask("ok", "free", key=None).code == "OK"
    assert server.ask("ok", "free", key=None).code == "OK"
    assert server.effects("free") == 2
    assert server.effects("ok") == 1
    assert server.effects("abort:NOT_FOUND") == server.effects("gone") == server.effects("bug") == 0


@both
def test_an_outer_interceptor_sees_replies_of_the_handlers_class_on_replays_too(
    serve: Callable[..., Server], place: Place
) -> None:
    looking: Any = AioLooking() if place.aio else Looking()
    server = serve(**beside("inner", looking))
    first = server.ask("ok", "a")
    assert server.ask("ok", "a").told == first.told
    assert looking.seen[0] == looking.seen[1]
    assert type(looking.seen[0]) is type(looking.seen[1])
    assert first.trailers == TRAILERS


def to_status(place: Place) -> Any:
    """Return grpc-interceptor's own interceptor that makes NOT_FOUND of all exceptions."""
    kind = AsyncExceptionToStatusInterceptor if place.aio else ExceptionToStatusInterceptor
    return kind(status_on_unknown_exception=grpc.StatusCode.NOT_FOUND)


@both
def test_an_exception_that_an_inner_interceptor_makes_a_status_of_is_that_status(
    serve: Callable[..., Server], place: Place
) -> None:
    server = serve(**beside("outer", to_status(place)))
    first = server.ask("raise", "a")
    assert (first.code, first.details) == ("NOT_FOUND", "ValueError('a bug')")
    assert server.ask("raise", "a").told == first.told
    assert server.script.runs["a"] == 1


@both
def test_an_exception_that_an_outer_interceptor_makes_a_status_of_frees_the_key(
    serve: Callable[..., Server], place: Place
) -> None:
    server = serve(**beside("inner", to_status(place)))
    for runs in (1, 2):
        assert server.ask("raise", "a").code == "NOT_FOUND"
        assert server.script.runs["a"] == runs
    assert server.effects("a") == 0


@both
@ours_is
def test_an_abort_passes_interceptors_that_make_statuses_of_exceptions(
    serve: Callable[..., Server], place: Place, ours: str
) -> None:
    server = serve(**beside(ours, to_status(place)))
    for code, runs in (("FAILED_PRECONDITION", 1), ("UNAVAILABLE", 2)):
        first, again = (server.ask(f"abort:{code}", code) for _ in range(2))
        assert (first.code, first.details) == (code, f"said {code} in ünïcode")
        assert again.told == first.told
        assert server.script.runs[code] == runs


class Logging(ServerInterceptor):
    """An access log: notes how calls end whose handler raises or aborts."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
        try:
            return method(request, context)
        except Exception:
            self.ends.append((context.code(), context.details()))
            raise


class AioLogging(AsyncServerInterceptor):
    """The same for asyncio."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    async def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
        try:
            return await method(request, context)
        except Exception:
            self.ends.append((context.code(), context.details()))
            raise


@both
@ours_is
def test_an_interceptor_reads_code_and_text_of_an_abort(
    serve: Callable[..., Server], place: Place, ours: str
) -> None:
    log: Any = AioLogging() if place.aio else Logging()
    server = serve(**beside(ours, log))
    server.ask("abort:NOT_FOUND", "a")
    ((code, text),) = until_sync(lambda: log.ends)  # the caller may have its answer before
    # On asyncio grpcio's own context has the number of a status that was aborted with.
    assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND.value[0])
    # On sync servers it has the text's bytes.
    assert (text if isinstance(text, str) else text.decode()) == "said NOT_FOUND in ünïcode"
