"""Clients of the payments server, whose calls are parked and forwarded."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.brokers import Message, open_broker
from fusewire.forwarding import ParkedCalls, ParkPolicy, Receipt
from fusewire.interceptors import aio_interceptors, guard
from fusewire.parking import RetryPolicy
from tests.forwarding.conftest import CHANNEL_OPTIONS, CHARGE, PaymentsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fusewire.breaker import BreakerRegistry
    from fusewire.forwarding import Encryption, ForwarderHandle
    from fusewire.parking import MessageEvent


def pending(request: bytes, receipt: Receipt) -> bytes:
    return b"pending:" + receipt.operation_id.encode()


class AioShop:
    """A client on an asyncio channel."""

    def __init__(self, calls: ParkedCalls, channel: grpc.aio.Channel) -> None:
        self.calls = calls
        self.channel = channel
        self.events: list[MessageEvent] = []
        calls.add_listener(self.events.append)
        self._charge: Any = channel.unary_unary(CHARGE)
        self.forwarding: ForwarderHandle | None = None

    def forward(self) -> None:
        self.forwarding = self.calls.forward_to(self.channel)

    async def charge(self, what: str, key: str | None = None, **options: Any) -> bytes:
        metadata = (("idempotency-key", key),) if key else ()
        metadata += options.pop("metadata", ())
        reply: bytes = await self._charge(
            what.encode(), metadata=metadata, **{"timeout": 30, **options}
        )
        return reply

    def happened(self, outcome: str) -> list[str]:
        return [event.operation_id for event in self.events if event.outcome == outcome]

    async def dead(self, address: str) -> list[Message]:
        async with open_broker(address) as broker:
            return await broker.peek(self.calls.topology.dead, limit=100)


@asynccontextmanager
async def aio_shop(
    address: str,
    queue: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    *,
    forward: bool = True,
    max_attempts: int = 5,
    **park: Any,
) -> AsyncIterator[AioShop]:
    """Make a shop.

    Args:
        address: the broker's.
        queue: its queue.
        server: whom it calls.
        registry: of its breakers.
        forward: whether it forwards, too.
        max_attempts: of a call.
        park: what `park()` is given; `policy` to use a policy in its place, and `calls` with
            further arguments of the ParkedCalls.
    """
    policy: ParkPolicy | None = park.pop("policy", None)
    options: dict[str, Any] = park.pop("calls", {})
    encryption: Encryption | None = park.pop("encryption", None)
    lanes = park.pop("lanes", None)
    park = {"idempotent": True, **park} if "at_most_once" not in park else park
    async with ParkedCalls(
        address,
        queue=queue,
        registry=registry,
        retry=RetryPolicy(delays=(0.05, 0.2), max_attempts=max_attempts),
        lanes=lanes,
        park_timeout=30,
        methods={} if policy is None else {CHARGE: policy},
        encryption=encryption,
        **options,
    ) as stored:
        fallbacks = stored.fallbacks()
        if policy is None:
            fallbacks = {CHARGE: stored.park(**{"reply": pending, **park})}
        interceptors = aio_interceptors(registry=registry, fallbacks=fallbacks)
        async with grpc.aio.insecure_channel(
            server.target, interceptors=interceptors, options=CHANNEL_OPTIONS
        ) as channel:
            shop = AioShop(stored, channel)
            if forward:
                shop.forward()
            yield shop
            if shop.forwarding is not None:
                await shop.forwarding.end()


@contextmanager
def sync_shop(
    address: str, queue: str, server: PaymentsServer, registry: BreakerRegistry
) -> Iterator[tuple[ParkedCalls, Any, list[MessageEvent]]]:
    with ParkedCalls(
        address,
        queue=queue,
        registry=registry,
        retry=RetryPolicy(delays=(0.05, 0.2)),
        park_timeout=30,
    ) as calls:
        events: list[MessageEvent] = []
        calls.add_listener(events.append)
        fallbacks = {CHARGE: calls.park(reply=pending, idempotent=True)}
        bare = grpc.insecure_channel(server.target, options=CHANNEL_OPTIONS)
        with (
            guard(bare, registry=registry, fallbacks=fallbacks) as channel,
            calls.forward_to(channel),
        ):
            yield calls, channel.unary_unary(CHARGE), events


def trip(registry: BreakerRegistry, name: str = CHARGE) -> None:
    """Open a circuit until :func:`recover`, however slow the machine is."""
    breaker = registry.get(name)
    while breaker.can_execute():
        breaker.acquire().failure()
    breaker.hold_open(300)


def recover(registry: BreakerRegistry, name: str = CHARGE) -> None:
    """End the open time of a circuit."""
    registry.get(name).half_open()
