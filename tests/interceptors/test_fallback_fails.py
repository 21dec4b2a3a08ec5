"""A fallback that fails leaves the original error, and is its cause, wherever the call is made."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.errors import CircuitOpenError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import STYLES, call
from tests.support.grpc_server import ECHO, EchoServer, ask
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.grpc_guard import WatchedRegistry

WHY = pytest.mark.parametrize("why", ["rejected", "failed"])
DOWN = ask(code="UNAVAILABLE", details="down", messages=0)


def _fails(_request: object, _error: grpc.RpcError) -> Any:
    raise OSError("no disk")


def _fails_from(_request: object, error: grpc.RpcError) -> Any:
    raise OSError("no disk") from error


def _fails_by_and_by(_request: object, error: grpc.RpcError) -> Any:
    try:
        raise error
    except grpc.RpcError:
        try:
            return {}["not stored"]
        except KeyError as missing:
            raise OSError("no disk") from missing


def _breaks_off(_request: object, error: grpc.RpcError) -> Iterator[bytes]:
    yield b"a"
    raise OSError("no disk") from error


FALLBACKS = pytest.mark.parametrize("fallback", [_fails, _fails_from, _fails_by_and_by])


def _sync(server: EchoServer, registry: WatchedRegistry, fallback: Any) -> Any:
    bare = grpc.insecure_channel(server.target)
    return guard(bare, registry=registry, fallbacks={"*": fallback})


def _aio(server: EchoServer, registry: WatchedRegistry, fallback: Any) -> Any:
    interceptors = aio_interceptors(registry=registry, fallbacks={"*": fallback})
    return grpc.aio.insecure_channel(server.target, interceptors=interceptors)


def _raised_by(way: Way, channel: Any) -> BaseException:
    """Make the call in the handler of another error, as a second try often is."""
    try:
        return {}["the user's own"]
    except KeyError:
        with pytest.raises(grpc.RpcError) as raised:
            _use_up(way, channel)
    return raised.value


def _use_up(way: Way, channel: Any) -> Any:
    made = way.make(channel, DOWN)
    return made.result(20) if way.style == "future" else list(made)


async def _aio_raised_by(way: Way, channel: Any) -> BaseException:
    """Do the same on an asyncio channel."""
    try:
        return {}["the user's own"]
    except KeyError:
        with pytest.raises(grpc.RpcError) as raised:
            await _aio_use_up(way, channel)
    return raised.value


async def _aio_use_up(way: Way, channel: Any) -> Any:
    made = way.make(channel, DOWN)
    if way.style == "write":
        # When the call ends early, how much of it is written is chance.
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await made.write(DOWN)
            await made.done_writing()
    return [message async for message in made] if way.streams else await made


def _check(error: BaseException, why: str) -> None:
    assert isinstance(error, grpc.RpcError)
    assert isinstance(error, CircuitOpenError) is (why == "rejected")
    assert isinstance(error.__cause__, OSError)
    assert error.__notes__ == ["The fallback failed too: OSError('no disk')"]
    assert error not in _behind(error.__cause__)


def _behind(error: BaseException) -> list[BaseException]:
    """Find all that led to an error; what leads to itself fails the test."""
    found = [error]
    for each in found:
        assert len(found) < 20, "a circle"
        found += [link for link in (each.__cause__, each.__context__) if link is not None]
    return found


def _prepare(way: Way, why: str, registry: WatchedRegistry) -> None:
    if why == "rejected":
        registry.get(way.path).open()


@WHY
@FALLBACKS
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_failed_fallback_is_the_cause_of_the_original_error(
    way: Way, why: str, fallback: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    _prepare(way, why, registry)
    with _sync(server, registry, fallback) as channel:
        _check(_raised_by(way, channel), why)


@WHY
@FALLBACKS
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_a_failed_fallback_is_the_cause_of_the_original_error_on_asyncio(
    way: Way, why: str, fallback: Any, server: EchoServer, registry: WatchedRegistry
) -> None:
    _prepare(way, why, registry)
    async with _aio(server, registry, fallback) as channel:
        _check(await _aio_raised_by(way, channel), why)


@WHY
@pytest.mark.parametrize("way", [way for way in SYNC_WAYS if way.streams], ids=str)
def test_a_fallback_that_breaks_off_is_the_cause_of_the_original_error(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    _prepare(way, why, registry)
    with _sync(server, registry, _breaks_off) as channel:
        _check(_raised_by(way, channel), why)


@WHY
@pytest.mark.parametrize("way", [way for way in AIO_WAYS if way.streams], ids=str)
async def test_a_fallback_that_breaks_off_is_the_cause_of_the_original_error_on_asyncio(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    _prepare(way, why, registry)
    async with _aio(server, registry, _breaks_off) as channel:
        _check(await _aio_raised_by(way, channel), why)


def _raises_it_again(_request: object, error: grpc.RpcError) -> Any:
    raise error


@STYLES
def test_a_fallback_that_raises_the_original_error_is_no_cause_of_it(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    with (
        _sync(server, registry, _raises_it_again) as channel,
        pytest.raises(grpc.RpcError, match="down") as raised,
    ):
        call(channel.unary_unary(ECHO), style, DOWN)
    assert raised.value not in (raised.value.__cause__, raised.value.__context__)
    assert not hasattr(raised.value, "__notes__")
