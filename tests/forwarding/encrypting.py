"""Shops and forwarders whose calls are encrypted, and the keys of their deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import open_broker
from fusewire.forwarding import Encryption, KeyRing
from tests.forwarding.shop import AioShop, aio_shop, trip

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    import pytest

    from tests.forwarding.conftest import PaymentsServer

OLD, NEW = b"\x01" * 32, b"\x02" * 32
MARKER = "card-4242424242424242"


class Keys:
    """The keys of one deployment, which may change while it runs."""

    def __init__(self, keys: Mapping[str, bytes], write_with: str = "") -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.give(keys, write_with)

    def give(self, keys: Mapping[str, bytes], write_with: str = "") -> None:
        self.ring = KeyRing(keys, write_with=write_with or next(iter(keys)))

    def __call__(self) -> KeyRing:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.ring


def encryption(keys: Mapping[str, bytes], **options: Any) -> Encryption:
    return Encryption(Keys(keys), **options)


RIGHT = encryption({"old": OLD})


def records(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [each for each in caplog.records if getattr(each, "fusewire_event", "") == event]


def reasons(shop: AioShop) -> list[str]:
    return [event.reason for event in shop.events if event.outcome == "dead"]


async def waiting(address: str, queue: str) -> int:
    async with open_broker(address) as broker:
        return await broker.depth(f"{queue}.parked.other")


async def park(
    address: str, queue: str, server: PaymentsServer, *what: str, **options: Any
) -> list[str]:
    """Park calls by a shop of their own, and return their ids."""
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1))
    trip(registry)
    async with aio_shop(address, queue, server, registry, forward=False, **options) as shop:
        replies = [
            await shop.charge(each, metadata=(("tenant", MARKER), ("trace-bin", b"\0\xff")))
            for each in what
        ]
    return [reply.removeprefix(b"pending:").decode() for reply in replies]
