"""When a server asks to be called again: hints are followed, and no hint does harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed
from grpc_status import rpc_status

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors, guard
from fusewire.interceptors._retry_info import PUSHBACK, read_retry_after
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ECHO, EchoServer, ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedRegistry


def _status(code: int, message: str) -> bytes:
    status = status_pb2.Status(code=code, message=message)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = 9
    status.details.add().Pack(info)
    return status.SerializeToString()


DETAILS: dict[str, tuple[bytes, float | None]] = {
    "another code": (_status(8, "later"), 9.0),
    "another message": (_status(14, "sooner"), 9.0),
    "no status at all": (b"\xff\xff", None),
}
DETAIL = pytest.mark.parametrize(("details", "seconds"), DETAILS.values(), ids=list(DETAILS))


def _order(details: bytes) -> bytes:
    return ask(code="UNAVAILABLE", details="later", messages=0, status_details=details)


@pytest.mark.parametrize("details", [details for details, _ in DETAILS.values()])
def test_grpcios_own_reader_raises_where_status_and_details_disagree(
    bare: grpc.Channel, details: bytes
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        bare.unary_unary(ECHO)(_order(details))
    with pytest.raises(Exception, match=r"[Cc]ode|[Mm]essage|parsing"):
        rpc_status.from_call(raised.value)


@DETAIL
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_status_whose_details_disagree_with_it_is_counted_and_its_hint_heard(
    way: Way, details: bytes, seconds: float | None, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = _order(details)
    with grpc.insecure_channel(server.target) as channel:
        without = finish(way, channel, order)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        assert finish(way, channel, order) == without
    breaker = registry.get(way.path)
    wait_until(lambda: breaker.told == [(Outcome.FAILURE, seconds)], "the call's outcome")


@DETAIL
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_status_whose_details_disagree_with_it_is_counted_and_its_hint_heard(
    way: Way, details: bytes, seconds: float | None, server: EchoServer, registry: WatchedRegistry
) -> None:
    async def call(interceptors: Any) -> Any:
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            return await aio_finish(way, channel, _order(details))

    assert await call(aio_interceptors(registry=registry)) == await call(aio_no_op())
    breaker = registry.get(way.path)
    await until(lambda: breaker.told == [(Outcome.FAILURE, seconds)], "the call's outcome")


# Numbers that no one can wait for. gRPC's core cuts what comes over the wire; others do not.


@pytest.mark.parametrize("digits", [310, 4000, 5000])
def test_a_pushback_beyond_all_numbers_is_no_hint(digits: int) -> None:
    assert read_retry_after([(PUSHBACK, "9" * digits)]) is None
    assert read_retry_after([(PUSHBACK, "9" * digits), (PUSHBACK, "500")]) == 0.5


@pytest.mark.parametrize("value", ["", "soon", "1.5", "-1", "-" + "9" * 400, b"\xff"])
def test_a_pushback_that_is_no_number_of_milliseconds_is_no_hint(value: str | bytes) -> None:
    assert read_retry_after([(PUSHBACK, value)]) is None
