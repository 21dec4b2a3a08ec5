"""A server that lets nobody in, or is full, for a while does not kill the calls that are parked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer

MANY = 6  # calls, each dead at its first attempt that counts
PUSHBACK = (("grpc-retry-pushback-ms", "20"),)
IDEMPOTENT, AT_MOST_ONCE = {"idempotent": True}, {"at_most_once": True}


@pytest.mark.parametrize(
    ("promise", "code", "trailing"),
    [
        (IDEMPOTENT, grpc.StatusCode.UNAUTHENTICATED, ()),
        (IDEMPOTENT, grpc.StatusCode.PERMISSION_DENIED, ()),
        (IDEMPOTENT, grpc.StatusCode.RESOURCE_EXHAUSTED, ()),
        (IDEMPOTENT, grpc.StatusCode.FAILED_PRECONDITION, PUSHBACK),
        (AT_MOST_ONCE, grpc.StatusCode.UNAUTHENTICATED, ()),
        (AT_MOST_ONCE, grpc.StatusCode.PERMISSION_DENIED, ()),
    ],
    ids=str,
)
async def test_calls_wait_in_their_lane_until_they_are_let_in(  # noqa: PLR0917 - fixtures
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    promise: dict[str, bool],
    code: grpc.StatusCode,
    trailing: tuple[tuple[str, str], ...],
) -> None:
    server.answer, server.trailing = lambda key: code, trailing
    async with aio_shop(
        address, queue_name, server, registry, forward=False, max_attempts=1, **promise
    ) as shop:
        for number in range(MANY):
            trip(registry)
            await shop.charge("a", f"op-{number}")
        recover(registry)
        shop.forward()
        await until(lambda: len(server.seen) >= 4)  # the lane is paused, and probed
        server.answer = lambda key: None
        await until(lambda: len(shop.happened("replayed")) == MANY, limit=60)
        assert shop.happened("dead") == []
    assert Counter(server.effects) == {f"op-{number}": b"a" for number in range(MANY)}


async def test_at_most_once_a_full_server_leaves_a_call_in_doubt(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.RESOURCE_EXHAUSTED
    async with aio_shop(address, queue_name, server, registry, **AT_MOST_ONCE) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert len(server.seen) == 1
