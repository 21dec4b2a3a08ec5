"""Every way of calling by what libraries check: a call's classes, and its callbacks' threads.

Libraries ask by ``isinstance``, often in a done callback, and rely on callbacks that do not come
on the caller's thread while the call is being made: a library that makes the call again would
recurse. So each cell compares with a bare call which of grpcio's public classes the call, its error
and what the callback is given are, and on which side of the call its callback came.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, Literal

import grpc
import pytest

from fusewire.interceptors import FallbackDeclined, aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer

PUBLIC = [
    (f"{module.__name__}.{name}", value)
    for module in (grpc, grpc.aio)
    for name in module.__all__
    if inspect.isclass(value := getattr(module, name))
]
"""The public classes of grpcio."""


def kinds(value: object) -> frozenset[str]:
    """Return the names of the public classes that `value` is an instance of."""
    return frozenset(name for name, of in PUBLIC if isinstance(value, of))


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


def _instead(way: Way) -> Any:
    return [b"a", b"b"] if way.streams else b"a"


GUARDS = ("plain", "declining", "first_message", "rejected", "rejected, declining", "answered")
"""Guards that change nothing, in the three ways of watching a call, and those that step in."""

ORDERS = {
    "ok": ask(delay=0.02),
    "error status": ask(code="UNAVAILABLE", messages=0),
    "dead server": ask(),
}
FAILS = ("error status", "dead server")


AIO_UNWRITTEN = [way for way in AIO_WAYS if way.style != "write"]


def cells(ways: list[Way]) -> Iterator[Any]:
    for way in ways:
        for end in ORDERS:
            for kind in GUARDS:
                if kind == "first_message" and not way.streams:
                    continue
                if end == "ok" and kind not in ("plain", "declining", "first_message"):
                    continue  # nothing to step in for
                yield pytest.param(way, end, kind, id=f"{way}-{end}-{kind}")


def _options(way: Way, kind: str, registry: WatchedRegistry) -> dict[str, Any]:
    if kind.startswith("rejected"):
        registry.get(way.path).open()
    if kind == "answered":
        return {"fallbacks": {"*": _instead(way)}}
    if kind.endswith("declining"):
        return {"fallbacks": {"*": _decline}}
    return {"streams": "first_message"} if kind == "first_message" else {}


@pytest.fixture(scope="module")
def dead() -> str:
    return f"127.0.0.1:{reserve_port()}"


class _Callback:
    """A done callback that notes what it is given, and whether its user was in the call."""

    def __init__(self) -> None:
        self.given: list[frozenset[str]] = []
        self.threads: list[int] = []

    def __call__(self, call: object) -> None:
        self.threads.append(threading.get_ident())
        self.given.append(kinds(call))


def _sync_end(
    way: Way,
    channel: Any,
    order: bytes,
    *,
    elsewhere: Literal["always", "in flight", "by chance"] = "by chance",
) -> tuple[Any, ...]:
    """Make a call, read it to its end and return what its user can ask of it.

    Args:
        way: how it is made.
        channel: on what.
        order: what the server is to do.
        elsewhere: when its callback must come from another thread. Of a bare call too it is chance
            if the call may be over before the callback is added.
    """
    callback, late = _Callback(), _Callback()
    try:
        call = way.make(channel, order, timeout=10)
    except grpc.RpcError as error:
        return ("raised", kinds(error))
    if way.style == "call":
        return ("responded",)
    if way.style == "with_call":
        return ("responded", kinds(call[1]))
    must_be_elsewhere = elsewhere == "always" or (elsewhere == "in flight" and not call.done())
    call.add_done_callback(callback)
    raised = None
    try:
        if way.streams:
            for _ in call:
                pass
        else:
            call.result(20)
    except grpc.RpcError as error:
        raised = kinds(error)
    wait_until(lambda: callback.given, "the callback")
    wait_until(call.done, "the end")
    call.add_done_callback(late)
    caller = threading.get_ident()
    assert late.threads == [caller]
    error = call.exception()
    assert not must_be_elsewhere or caller not in callback.threads
    return (kinds(call), raised, kinds(error), callback.given, late.given)


@pytest.mark.parametrize(("way", "end", "kind"), list(cells(SYNC_WAYS)))
def test_a_sync_call_is_to_libraries_what_a_bare_one_is(  # noqa: PLR0917 - fixtures
    way: Way, end: str, kind: str, server: EchoServer, dead: str, registry: WatchedRegistry
) -> None:
    target = dead if end == "dead server" else server.target
    # A call that a fallback has answered ends as one that its server has answered.
    bare, bare_end = (server.target, "ok") if kind == "answered" else (target, end)
    with grpc.insecure_channel(bare) as channel:
        in_flight = "in flight" if bare_end == "ok" else "by chance"
        without = _sync_end(way, channel, ORDERS[bare_end], elsewhere=in_flight)
    options = _options(way, kind, registry)
    elsewhere = "by chance"
    if kind == "rejected":
        elsewhere = "always"  # its user has not seen that it is over
    elif end == "ok" or kind in ("rejected, declining", "answered"):
        elsewhere = "in flight"
    with guard(grpc.insecure_channel(target), registry=registry, **options) as channel:
        assert _sync_end(way, channel, ORDERS[end], elsewhere=elsewhere) == without


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_guarded_method_has_the_signature_of_a_bare_one(way: Way) -> None:
    def parameters(channel: grpc.Channel) -> list[tuple[Any, ...]]:
        method = getattr(channel, way.shape)(way.path)
        method = method if way.style not in ("with_call", "future") else getattr(method, way.style)
        return [
            (one.name, one.kind, one.default)
            for one in inspect.signature(method).parameters.values()
        ]

    with grpc.insecure_channel("127.0.0.1:1") as bare:
        assert parameters(guard(bare)) == parameters(bare)


async def _aio_end(way: Way, channel: Any, order: bytes) -> tuple[Any, ...]:
    """Make a call and read it to its end; returns what its user can ask of it."""
    callback = _Callback()
    call = way.make(channel, order, timeout=10)
    call.add_done_callback(callback)
    made_within_the_call = bool(callback.given)
    raised = None
    try:
        async with asyncio.timeout(20):
            if way.streams:
                async for _ in call:
                    pass
            else:
                await call
    except grpc.RpcError as error:
        raised = kinds(error)
    await call.code()
    await until(lambda: callback.given, "the callback")
    assert callback.threads == [threading.get_ident()]
    return (kinds(call), raised, made_within_the_call, callback.given)


@pytest.mark.parametrize(("way", "end", "kind"), list(cells(AIO_UNWRITTEN)))
async def test_an_asyncio_call_is_to_libraries_what_a_bare_one_is(  # noqa: PLR0917 - fixtures
    way: Way, end: str, kind: str, server: EchoServer, dead: str, registry: WatchedRegistry
) -> None:
    target = dead if end == "dead server" else server.target
    bare, bare_end = (server.target, "ok") if kind == "answered" else (target, end)

    async def seen(target: str, end: str, interceptors: Any) -> tuple[Any, ...]:
        within: list[frozenset[str]] = []
        outer = aio_no_op(lambda call: within.append(kinds(call)))
        all_of_them = [*outer, *interceptors]
        async with grpc.aio.insecure_channel(target, interceptors=all_of_them) as channel:
            end_seen = await _aio_end(way, channel, ORDERS[end])
        # A rejection is an error to an interceptor outside the guard, and no call.
        return end_seen if kind == "rejected" else (*end_seen, within)

    guards = aio_interceptors(registry=registry, **_options(way, kind, registry))
    assert await seen(target, end, guards) == await seen(bare, bare_end, aio_no_op())
