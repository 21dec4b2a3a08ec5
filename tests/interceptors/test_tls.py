"""Guarded calls over TLS, with call credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer

OK, FAILURE = [Outcome.SUCCESS], [Outcome.FAILURE]

ENDS: dict[str, tuple[bytes, dict[str, Any], list[Outcome]]] = {
    "ok": (ask(), {}, OK),
    "error": (ask(code="UNAVAILABLE", messages=0), {}, FAILURE),
    "broken off": (ask(code="INTERNAL", messages=2), {}, FAILURE),
    "deadline": (ask(delay=20), {"timeout": 0.2}, FAILURE),
}
END = pytest.mark.parametrize(("order", "options", "outcomes"), ENDS.values(), ids=list(ENDS))


def credentials(server: EchoServer) -> grpc.ChannelCredentials:
    token = grpc.access_token_call_credentials("secret")
    return grpc.composite_channel_credentials(server.credentials(), token)


@END
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_sync_user_sees_the_same_over_tls(  # noqa: PLR0917 - the table's columns
    way: Way,
    order: bytes,
    options: dict[str, Any],
    outcomes: list[Outcome],
    secure: EchoServer,
    registry: WatchedRegistry,
) -> None:
    target = f"localhost:{secure.port}"
    with grpc.secure_channel(target, credentials(secure)) as channel:
        without = finish(way, channel, order, **options)
    channel = grpc.secure_channel(target, credentials(secure))
    with guard(channel, registry=registry) as guarded:
        assert finish(way, guarded, order, **options) == without
    assert ["authorization", "Bearer secret"] in secure.seen()["metadata"]
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == outcomes


@END
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_user_sees_the_same_over_tls(  # noqa: PLR0917 - the table's columns
    way: Way,
    order: bytes,
    options: dict[str, Any],
    outcomes: list[Outcome],
    secure: EchoServer,
    registry: WatchedRegistry,
) -> None:
    async def call(interceptors: Any) -> Any:
        async with grpc.aio.secure_channel(
            f"localhost:{secure.port}", credentials(secure), interceptors=interceptors
        ) as channel:
            return await aio_finish(way, channel, order, **options)

    without = await call(aio_no_op())
    assert await call(aio_interceptors(registry=registry)) == without
    assert ["authorization", "Bearer secret"] in secure.seen()["metadata"]
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == outcomes
