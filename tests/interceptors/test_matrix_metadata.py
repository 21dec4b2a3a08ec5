"""Every way of calling by every kind of metadata that grpcio takes: all that was given is sent.

grpcio takes any iterable of pairs and reads it once. A guard reads it first, and must not use it
up.
"""

from __future__ import annotations

import collections
import operator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import FallbackDeclined, aio_interceptors, guard
from fusewire.operation import IDEMPOTENCY_KEY, operation
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer

PAIRS = (("authorization", "Bearer x"), ("x-many", "1"), ("x-other", "2"), ("x-many", "3"))


class _Once:
    """An iterable that can be read once, and is no iterator."""

    def __init__(self) -> None:
        self._left = iter(PAIRS)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self._left


class _Indexed:
    """A sequence that no base class shows to be one."""

    def __len__(self) -> int:
        return len(PAIRS)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return PAIRS[index]


KINDS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "empty": lambda: (),
    "tuple": lambda: PAIRS,
    "list": lambda: list(PAIRS),
    "list of lists": lambda: [list(pair) for pair in PAIRS],
    "deque": lambda: collections.deque(PAIRS),
    "grpc.aio.Metadata": lambda: grpc.aio.Metadata(*PAIRS),
    "dict items": lambda: dict(PAIRS).items(),
    "set": lambda: set(PAIRS),
    "indexed": _Indexed,
    "iterator": lambda: iter(PAIRS),
    "generator": lambda: (pair for pair in PAIRS),
    "map": lambda: map(tuple, PAIRS),
    "read once": _Once,
}


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


GUARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "declining": {"fallbacks": {"*": _decline}},
    "idempotent": {"idempotent": {"*"}},
}

UNSIZED = ("iterator", "generator", "map", "read once")


def cells(ways: list[Way]) -> Iterator[Any]:
    for way in ways:
        for kind in KINDS:
            # There a bare sync channel asks how many there are (grpc/_channel.py, `future`).
            if not (kind in UNSIZED and (way.shape, way.style) == ("stream_unary", "future")):
                yield pytest.param(way, kind, id=f"{way}-{kind}")


GUARD = pytest.mark.parametrize("options", [pytest.param(GUARDS[name], id=name) for name in GUARDS])


def _received(server: EchoServer) -> list[tuple[str, str]]:
    ours = {key for key, _ in PAIRS}
    pairs = [(key, value) for key, value in server.seen()["metadata"] if key in ours]
    return sorted(pairs, key=operator.itemgetter(0))  # in their order within a key


@GUARD
@pytest.mark.parametrize(("way", "kind"), list(cells(SYNC_WAYS)))
def test_a_sync_call_sends_the_metadata_that_its_user_gave(
    way: Way, kind: str, options: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    def call(channel: Any) -> tuple[Any, ...]:
        with channel, operation("o-1"):
            return (*finish(way, channel, ask(), metadata=KINDS[kind]()), _received(server))

    without = call(grpc.insecure_channel(server.target))
    assert call(guard(grpc.insecure_channel(server.target), registry=registry, **options)) == (
        without
    )
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == [Outcome.SUCCESS]


@GUARD
@pytest.mark.parametrize(("way", "kind"), list(cells(AIO_WAYS)))
async def test_an_asyncio_call_sends_the_metadata_that_its_user_gave(
    way: Way, kind: str, options: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    async def call(interceptors: Any) -> tuple[Any, ...]:
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            with operation("o-1"):
                seen = await aio_finish(way, channel, ask(), metadata=KINDS[kind]())
            return (*seen, _received(server))

    without = await call(aio_no_op())
    assert await call(aio_interceptors(registry=registry, **options)) == without
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == [Outcome.SUCCESS]


def _given_up() -> Iterator[tuple[str, str]]:
    yield PAIRS[0]
    raise LookupError("no token")


def _not_pairs() -> Iterator[Any]:
    yield PAIRS[0]
    yield 7


@GUARD
@pytest.mark.parametrize("metadata", [_given_up, _not_pairs])
def test_a_sync_call_whose_metadata_cannot_be_read_is_not_sent_without_them(
    metadata: Any, options: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    way, before = SYNC_WAYS[0], server.seen()["begun"]
    with grpc.insecure_channel(server.target) as channel, operation("o-1"):
        without = finish(way, channel, ask(), metadata=metadata())
        guarded = guard(channel, registry=registry, **options)
        assert finish(way, guarded, ask(), metadata=metadata()) == without
    assert without[0] == "raised at once"
    assert server.seen()["begun"] == before
    assert Outcome.FAILURE not in registry.get(way.path).outcomes


@GUARD
async def test_an_asyncio_call_whose_metadata_cannot_be_read_is_not_sent_without_them(
    options: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    way, before = AIO_WAYS[0], server.seen()["begun"]
    interceptors = aio_interceptors(registry=registry, **options)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        seen = await aio_finish(way, channel, ask(), metadata=_given_up())
    assert seen[0] == ("LookupError",)
    assert server.seen()["begun"] == before
    assert registry.get(way.path).outcomes == []


async def test_an_iterator_that_holds_an_idempotency_key_keeps_it(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    metadata = iter(((IDEMPOTENCY_KEY, "mine"),))
    interceptors = aio_interceptors(registry=registry, idempotent={"*"})
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("o-1"):
            await aio_finish(AIO_WAYS[0], channel, ask(), metadata=metadata)
    keys = [value for key, value in server.seen()["metadata"] if key == IDEMPOTENCY_KEY]
    assert keys == ["mine"]
