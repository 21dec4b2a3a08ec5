"""A forwarder dies when RabbitMQ has confirmed the outcome, and has not acknowledged the call.

SQLite has no such moment: there the move is one transaction.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from fusewire.forwarding import Outcome, OutcomeKind
from tests.forwarding.shop import aio_shop, trip
from tests.support import dying_forwarder
from tests.support.waiting import until

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer
    from tests.forwarding.shop import AioShop


async def _park_and_die(
    shop: AioShop, address: str, queue: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    trip(registry)
    await shop.charge("request of op-a", "op-a")
    process = dying_forwarder.start(address, queue, server.target)
    assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL


def _reading(into: list[Outcome]) -> dict[str, Any]:
    async def on_outcome(outcome: Outcome) -> None:
        into.append(outcome)

    return {"on_outcome": on_outcome}


async def test_a_call_that_is_idempotent_is_made_once_and_has_two_equal_outcomes(
    amqp_url: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(
        amqp_url, queue_name, server, registry, forward=False, calls=_reading(outcomes)
    ) as shop:
        await _park_and_die(shop, amqp_url, queue_name, server, registry)
        await until(lambda: len(outcomes) == 1)  # it is there, although the call is not settled
        shop.forward()
        registry.get("/shop.Payments/Charge").reset()
        await until(lambda: len(outcomes) == 2)
        assert await shop.dead(amqp_url) == []

    assert outcomes[0] == outcomes[1]
    assert (outcomes[0].operation_id, outcomes[0].kind) == ("op-a", OutcomeKind.OK)
    assert [key for key, _ in server.seen] == ["op-a", "op-a"]  # asked again, under the same key
    assert server.effects == {"op-a": b"request of op-a"}


async def test_a_call_that_is_at_most_once_is_not_sent_again_and_a_notice_follows_its_outcome(
    amqp_url: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(
        amqp_url,
        queue_name,
        server,
        registry,
        forward=False,
        at_most_once=True,
        calls=_reading(outcomes),
    ) as shop:
        await _park_and_die(shop, amqp_url, queue_name, server, registry)
        await until(lambda: len(outcomes) == 1)
        shop.forward()
        await until(lambda: len(outcomes) == 2)
        await until(lambda: shop.happened("dead") == ["op-a"])

    assert [(one.operation_id, one.kind, one.final) for one in outcomes] == [
        ("op-a", OutcomeKind.OK, True),
        ("op-a", OutcomeKind.AMBIGUOUS, False),
    ]
    assert [key for key, _ in server.seen] == ["op-a"]
