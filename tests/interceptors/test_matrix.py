"""Every way of calling by every end that a call may have: the user sees what there is without us.

Each cell makes a call on a channel without guard and on one with it, compares all that the user
sees, and looks at what the breaker was told. On asyncio the channel without guard has interceptors
that do nothing, because grpcio's own wrapping of any intercepted call is not ours to answer for.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import FallbackDeclined, aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import EchoServer, ask, wait_until
from tests.support.grpc_users import AioUser, SyncUser
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support.grpc_guard import WatchedRegistry

OK, FAILURE, IGNORED = [Outcome.SUCCESS], [Outcome.FAILURE], [Outcome.IGNORED]


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


GUARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "declining": {"fallbacks": {"*": _decline}},
    "first_message": {"streams": "first_message"},
}
"""Guards that change nothing for the user, in the three ways of watching a call."""


def _break_serializer(_message: bytes) -> bytes:
    raise ValueError("this message cannot be serialized")


@dataclass(frozen=True)
class Case:
    """What becomes of a call.

    Attributes:
        order: what the server has to do.
        expected: what the breaker is to be told.
        options: further arguments of the call.
        server: ``well``, ``dead`` or ``hung``.
        act: what the user does once the call is made: a method's name below.
        by_message: the outcome if it is at the first message; as `expected` otherwise.
        aio_expected: the same as `expected` where asyncio differs.
        may_never_begin: whether it is chance if the breaker is asked at all.
        races: whether on asyncio it is chance if the user of a call that is written to sees the
            server's status or grpcio's own for a request that could not be written.
    """

    order: bytes
    expected: list[Outcome]
    options: dict[str, Any] = field(default_factory=dict)
    server: str = "well"
    act: str = ""
    by_message: list[Outcome] | None = None
    aio_expected: list[Outcome] | None = None
    may_never_begin: bool = False
    races: bool = False


CASES = {
    "ok": Case(ask(), OK),
    "ok, no message": Case(ask(messages=0), OK),
    "error status": Case(ask(code="UNAVAILABLE", details="no", messages=0), FAILURE),
    "an answer that is an error": Case(ask(code="NOT_FOUND", messages=0), OK),
    "handler raises": Case(ask(raises=True, messages=0), FAILURE),
    "broken off": Case(ask(code="INTERNAL", messages=2), FAILURE, by_message=OK),
    "status before all requests are read": Case(
        ask(code="UNAVAILABLE", messages=0, patience=False), FAILURE, races=True
    ),
    "dead server": Case(ask(), FAILURE, server="dead"),
    "hung server": Case(ask(), FAILURE, {"timeout": 0.1}, server="hung"),
    "deadline": Case(ask(delay=20), FAILURE, {"timeout": 0.1}),
    "deadline in the past": Case(ask(), IGNORED, {"timeout": -1.0}),
    "cancelled at once": Case(ask(delay=20), IGNORED, act="cancel_at_once", may_never_begin=True),
    "cancelled in flight": Case(ask(delay=20), IGNORED, act="cancel_in_flight"),
    "cancelled after the end": Case(ask(), OK, act="cancel_after_end"),
    "serializer raises": Case(
        # asyncio sends an empty message instead (https://github.com/grpc/grpc/issues/34894).
        ask(),
        IGNORED,
        {"serializer": _break_serializer},
        aio_expected=OK,
    ),
    "invalid metadata": Case(
        # On asyncio such a call never ends, and is not guarded.
        ask(),
        IGNORED,
        {"metadata": (("NOT A KEY", "x"),)},
        act="cancel_what_never_begins",
        aio_expected=[],
    ),
    "channel closed in flight": Case(ask(delay=20), IGNORED, act="close_in_flight"),
    "callback raises": Case(ask(delay=0.05), OK, act="call_back"),
}


@pytest.fixture(scope="module")
def servers(server: EchoServer) -> Iterator[dict[str, str]]:
    """Provide the addresses of a healthy server, of none, and of one that hangs."""
    with EchoServer() as hung:
        hung.pause()
        yield {"well": server.target, "dead": f"127.0.0.1:{reserve_port()}", "hung": hung.target}
        hung.resume()


def cells(ways: list[Way]) -> Iterator[Any]:
    for name, case in CASES.items():
        for way in ways:
            # With older grpcio, a writer to a call that never begins waits forever.
            if case.act == "cancel_what_never_begins" and way.style == "write":
                continue
            # A call that blocks is over before its user can do anything to it.
            if not (case.act and case.act != "cancel_what_never_begins" and way.blocks):
                for kind in GUARDS:
                    if kind != "first_message" or way.streams:
                        yield pytest.param(way, case, kind, id=f"{way}-{name}-{kind}")


def is_exempt(way: Way, case: Case, kind: str) -> bool:
    """Return where the user sees less: a callback's error that grpcio raises in the user's await.

    A call that is looked into logs it instead.
    """
    return way.asynchronous and case.act == "call_back" and kind != "plain"


def but_for_chance(way: Way, case: Case, seen: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out of what the user has seen what is chance: which status, not whether one is."""
    if case.races and way.shape.startswith("stream"):
        (kind, *_), cancelled, done, *_ = seen
        return kind, cancelled, done
    return seen


def expected_of(way: Way, case: Case, kind: str) -> list[Outcome]:
    if way.asynchronous and case.aio_expected is not None:
        return case.aio_expected
    if kind == "first_message" and case.by_message is not None:
        return case.by_message
    return case.expected


@pytest.mark.parametrize(("way", "case", "kind"), list(cells(SYNC_WAYS)))
def test_a_sync_user_sees_the_same_and_the_breaker_is_told_once(  # noqa: PLR0917 - fixtures
    way: Way,
    case: Case,
    kind: str,
    server: EchoServer,
    servers: dict[str, str],
    registry: WatchedRegistry,
) -> None:
    target = servers[case.server]

    def call(channel: Any) -> tuple[Any, ...]:
        with channel:
            user = SyncUser(way, channel, server)
            act: Callable[[Any], None] | None = getattr(user, case.act, None)
            options = {**case.options, "act": act}
            return (*finish(way, channel, case.order, **options), *user.answers)

    without = call(grpc.insecure_channel(target))
    with_guard = call(guard(grpc.insecure_channel(target), registry=registry, **GUARDS[kind]))
    assert with_guard == without
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == expected_of(way, case, kind)


@pytest.mark.parametrize(("way", "case", "kind"), list(cells(AIO_WAYS)))
async def test_an_asyncio_user_sees_the_same_and_the_breaker_is_told_once(  # noqa: PLR0917 - fixtures
    way: Way,
    case: Case,
    kind: str,
    server: EchoServer,
    servers: dict[str, str],
    registry: WatchedRegistry,
) -> None:
    target = servers[case.server]

    if case.act == "call_back":  # grpcio leaves the error to the loop, which makes a test fail
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

    async def call(interceptors: Any) -> tuple[Any, ...]:
        async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
            user = AioUser(way, channel, server)
            act: Callable[[Any], Awaitable[None]] | None = getattr(user, case.act, None)
            seen = await aio_finish(way, channel, case.order, **case.options, act=act)
            return (*but_for_chance(way, case, seen), *user.answers)

    without = await call(aio_no_op())
    with_guard = await call(aio_interceptors(registry=registry, **GUARDS[kind]))
    assert with_guard == without or is_exempt(way, case, kind)
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")
    never_begun = case.may_never_begin and not breaker.permits
    assert never_begun or breaker.outcomes == expected_of(way, case, kind)


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_sync_user_sees_a_rejection_as_any_error(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(way.path)
    breaker.open()
    before = server.seen()["begun"]
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        seen = finish(way, channel, ask())
        if way.blocks:
            assert seen[0] == "raised at once"
            seen = (seen[1:],)
        else:
            assert seen[-4:] == (False, True, False, False)
        name, code, details, trailing = seen[0]
    assert (name, code) == ("RejectedCall", grpc.StatusCode.UNAVAILABLE)
    assert way.path in details
    assert dict(tuple(trailing))["grpc-retry-pushback-ms"] == "30000"
    assert server.seen()["begun"] == before
    assert breaker.outcomes == []


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_user_sees_a_rejection_as_any_error(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(way.path)
    breaker.open()
    before = server.seen()["begun"]
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        (name, code, details, trailing), cancelled, done, *_ = await aio_finish(way, channel, ask())
    assert (name, code) == ("AioRejectedCall", grpc.StatusCode.UNAVAILABLE)
    assert way.path in details
    assert dict(tuple(trailing))["grpc-retry-pushback-ms"] == "30000"
    assert (cancelled, done) == (False, True)
    assert server.seen()["begun"] == before
    assert breaker.outcomes == []


def _instead(way: Way) -> Any:
    return [b"a", b"b"] if way.streams else b"a"


def _begin_fallback(way: Way, why: str, registry: WatchedRegistry) -> bytes:
    if why == "rejected":
        registry.get(way.path).open()
    return ask(code="UNAVAILABLE", messages=0)


WHY = pytest.mark.parametrize("why", ["rejected", "failed"])


@WHY
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_sync_user_sees_a_fallbacks_reply_as_any_response(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = _begin_fallback(way, why, registry)
    fallbacks = {"*": _instead(way)}
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=registry, fallbacks=fallbacks) as guarded:
        seen = finish(way, guarded, order)
    trailing = (("fusewire-fallback", way.path),)
    state = (grpc.StatusCode.OK, "", trailing, False, True, False, False)
    messages: tuple[Any, ...] = (b"a", b"b") if way.streams else (b"a",)
    match way.style:
        case "call":
            assert seen == ("response", *messages)
        case "with_call":
            assert seen == ("response", *messages, *state)
        case _:
            assert seen == (*messages, *state)
    assert registry.get(way.path).outcomes == ([] if why == "rejected" else FAILURE)


@WHY
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_user_sees_a_fallbacks_reply_as_any_response(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = _begin_fallback(way, why, registry)
    interceptors = aio_interceptors(registry=registry, fallbacks={"*": _instead(way)})
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        seen = await aio_finish(way, channel, order)
    trailing = (("fusewire-fallback", way.path),)
    messages = (b"a", b"b") if way.streams else (b"a",)
    assert seen == (*messages, False, True, grpc.StatusCode.OK, "", trailing)
    assert registry.get(way.path).outcomes == ([] if why == "rejected" else FAILURE)


READ = pytest.mark.parametrize("read", [0, 1, 2])
KINDS = pytest.mark.parametrize("kind", list(GUARDS))


@READ
@KINDS
@pytest.mark.parametrize("way", [way for way in SYNC_WAYS if way.streams], ids=str)
def test_a_stream_that_a_sync_user_drops_is_cancelled_and_leaves_no_permit_behind(
    way: Way, kind: str, read: int, server: EchoServer, registry: WatchedRegistry
) -> None:
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=registry, **GUARDS[kind]) as guarded:
        before = server.seen()
        stream = way.make(guarded, ask(messages=-1))
        for _ in range(read):
            next(stream)
        wait_until(lambda: server.seen()["begun"] == before["begun"] + 1, "the call's begin")
        del stream
        gc.collect()
        wait_until(lambda: server.seen()["cancelled"] == before["cancelled"] + 1, "the cancel")
        breaker = registry.get(way.path)
        wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == (OK if kind == "first_message" and read else IGNORED)


@READ
@KINDS
@pytest.mark.parametrize("way", [way for way in AIO_WAYS if way.streams], ids=str)
async def test_a_stream_that_an_asyncio_user_leaves_is_settled_with_its_channel_at_the_latest(
    way: Way, kind: str, read: int, server: EchoServer, registry: WatchedRegistry
) -> None:
    # Since 1.83 grpcio never collects a call (https://github.com/grpc/grpc/issues/43462).
    interceptors = aio_interceptors(registry=registry, **GUARDS[kind])
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        before = server.seen()
        stream = way.make(channel, ask(messages=-1, patience=False))
        if way.style == "write":
            await stream.write(ask(messages=-1, patience=False))
        for _ in range(read):
            await stream.read()
        await until(lambda: server.seen()["begun"] == before["begun"] + 1, "the call's begin")
        del stream
        gc.collect()
    await until(lambda: server.seen()["cancelled"] == before["cancelled"] + 1, "the cancel")
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == (OK if kind == "first_message" and read else IGNORED)
