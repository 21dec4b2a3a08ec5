"""The forwarder understands what a server with `fusewire.idempotency` says about a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer


async def test_a_call_in_progress_is_asked_again_and_that_is_no_attempt(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.ABORTED
    server.trailing = (("fusewire-idempotency", "in-progress"), ("grpc-retry-pushback-ms", "10"))
    async with aio_shop(
        address, queue_name, server, registry, max_attempts=1, idempotent=True
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: len(server.seen) >= 3)
        assert shop.happened("dead") == []
        server.answer = lambda key: None
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


@pytest.mark.parametrize("word", ["in-doubt", "stale-key"])
@pytest.mark.parametrize("promise", ["idempotent", "at_most_once"])
async def test_a_call_that_the_server_does_not_know_about_is_dead_as_such_at_once(  # noqa: PLR0917 - fixtures
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    word: str,
    promise: str,
) -> None:
    server.answer = lambda key: grpc.StatusCode.FAILED_PRECONDITION
    server.trailing = (("fusewire-idempotency", word),)
    async with aio_shop(address, queue_name, server, registry, **{promise: True}) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == word
    assert len(server.seen) == 1
