"""Encrypted calls that somebody changed in the broker are dead, and nothing of them is sent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, open_broker
from tests.forwarding.encrypting import RIGHT, park, reasons
from tests.forwarding.shop import aio_shop
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import HeaderValue
    from tests.forwarding.conftest import PaymentsServer


@pytest.fixture
def queue_name() -> str:
    """Provide a name for a file of the test's own, which needs no RabbitMQ."""
    return "charges"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


async def change(address: str, queue: str, *messages: Message) -> None:
    """Put other messages in the place of those that wait."""
    async with open_broker(address) as broker:
        lane = f"{queue}.parked.other"
        subscription = await broker.subscribe(lane, prefetch=10)
        for _ in messages:
            await (await subscription.receive()).done()
        await subscription.release()
        for message in messages:
            await broker.publish(lane, message)


def with_headers(message: Message, **headers: HeaderValue) -> Message:
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return dataclasses.replace(message, headers={**message.headers, **changed})


TAMPERED = {
    "body": lambda message: dataclasses.replace(
        message, body=message.body[:-1] + bytes([message.body[-1] ^ 1])
    ),
    "method": lambda message: with_headers(
        message, fusewire_encrypted_method="/shop.Payments/Give"
    ),
    "timeout": lambda message: with_headers(message, fusewire_call_timeout_ms=1),
    "promise": lambda message: with_headers(message, fusewire_call_at_most_once=False),
    "window": lambda message: with_headers(message, fusewire_call_window_ms=2**40),
    "statuses": lambda message: with_headers(message, fusewire_call_done_on="ALREADY_EXISTS"),
    "id": lambda message: with_headers(message, fusewire_operation_id="another"),
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_a_call_that_was_tampered_with_is_dead_and_never_sent(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, what: str
) -> None:
    await park(sqlite, queue_name, server, "a", at_most_once=True, encryption=RIGHT)
    async with open_broker(sqlite) as broker:
        (stored,) = await broker.peek(f"{queue_name}.parked.other", limit=2)
    await change(sqlite, queue_name, TAMPERED[what](stored))
    async with aio_shop(sqlite, queue_name, server, registry, encryption=RIGHT) as shop:
        await until(lambda: reasons(shop) == ["malformed"])
        assert not shop.calls.status().halted
    assert server.seen == []


async def test_two_bodies_that_were_swapped_are_dead_and_never_sent(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    await park(sqlite, queue_name, server, "1 cent", "1000 euros", encryption=RIGHT)
    async with open_broker(sqlite) as broker:
        one, two = await broker.peek(f"{queue_name}.parked.other", limit=3)
    swapped = [
        dataclasses.replace(mine, body=theirs.body) for mine, theirs in ((one, two), (two, one))
    ]
    await change(sqlite, queue_name, *swapped)
    async with aio_shop(sqlite, queue_name, server, registry, encryption=RIGHT) as shop:
        await until(
            lambda: [e.reason for e in shop.events if e.outcome == "dead"] == ["malformed"] * 2
        )
    assert server.seen == []


async def test_the_end_of_its_time_is_bound_to_a_call(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    await park(sqlite, queue_name, server, "a", encryption=RIGHT, expires_after=0.01)
    async with open_broker(sqlite) as broker:
        (stored,) = await broker.peek(f"{queue_name}.parked.other", limit=2)
    late = with_headers(stored, fusewire_not_after_ms=2**50)
    await change(sqlite, queue_name, late)
    async with aio_shop(sqlite, queue_name, server, registry, encryption=RIGHT) as shop:
        await until(lambda: reasons(shop) == ["expired"])
    assert server.seen == []
