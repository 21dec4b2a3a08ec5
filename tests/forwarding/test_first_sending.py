"""When a call was first sent is kept, sent along, and what is too old is not sent again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.brokers import open_broker
from fusewire.forwarding import ParkedCalls, ParkPolicy
from fusewire.interceptors import CallInfo, aio_interceptors
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer

FIRST_SENT = "fusewire-first-sent-ms"
HOUR = 3600.0


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


def ms_ago(seconds: float) -> str:
    return str(round((time.time() - seconds) * 1000))


def said(server: PaymentsServer, number: int) -> int | None:
    value = server.seen[number][1].get(FIRST_SENT)
    return None if value is None else int(value)


async def test_a_call_that_was_only_rejected_has_not_been_sent_until_its_replay(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.INTERNAL if len(server.seen) < 2 else None
    async with aio_shop(file, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        before = time.time()
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert said(server, 0) is None
    first_sent = said(server, 1)
    assert first_sent is not None
    assert before * 1000 - 1 <= first_sent <= time.time() * 1000


async def test_a_call_that_failed_was_first_sent_when_its_caller_made_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    answered: list[float] = []

    def answer(key: str) -> grpc.StatusCode | None:
        answered.append(time.time())
        return grpc.StatusCode.INTERNAL if len(answered) < 3 else None

    server.answer = answer
    async with aio_shop(address, queue_name, server, registry) as shop:
        before = time.time()
        assert await shop.charge("a", "op-a") == b"pending:op-a"
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert said(server, 0) is None
    first_sent = said(server, 1)
    assert first_sent is not None
    assert before * 1000 - 1 <= first_sent <= answered[0] * 1000
    assert said(server, 2) == first_sent


async def test_a_call_that_was_not_let_in_was_not_sent(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    codes = iter([grpc.StatusCode.UNAUTHENTICATED])
    server.answer = lambda key: next(codes, None)
    async with aio_shop(file, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert [said(server, number) for number in (0, 1)] == [None, None]


async def test_a_caller_that_asks_again_may_say_when_it_first_asked(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    hour_ago = ms_ago(HOUR)
    async with aio_shop(file, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a", metadata=((FIRST_SENT, hour_ago),))
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert said(server, 0) == int(hour_ago)


async def test_a_call_that_came_back_unsettled_may_have_been_sent_since_it_was_parked(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(file, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        before = time.time()
        await shop.charge("a", "op-a")
        after = time.time()
        async with open_broker(file) as broker:
            lane = await broker.subscribe(shop.calls.topology.parked("other"), prefetch=1)
            await lane.receive()
            await lane.release()  # as when a forwarder dies
        recover(registry)
        shop.forward()
        await until(lambda: shop.happened("replayed") == ["op-a"])
    first_sent = said(server, 0)
    assert first_sent is not None
    assert before * 1000 - 1 <= first_sent <= after * 1000 + 1


async def test_a_call_that_is_older_than_its_window_is_dead_and_not_sent(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True, window=HOUR)
    async with aio_shop(address, queue_name, server, registry, policy=policy) as shop:
        trip(registry)
        await shop.charge("old", "op-old", metadata=((FIRST_SENT, ms_ago(HOUR * 0.96)),))
        await shop.charge("young", "op-young", metadata=((FIRST_SENT, ms_ago(HOUR * 0.9)),))
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-old"])
        await until(lambda: shop.happened("replayed") == ["op-young"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "stale-key"
    assert [key for key, _ in server.seen] == ["op-young"]


async def test_a_window_does_not_count_what_was_never_sent(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True, window=0.001)
    async with aio_shop(file, queue_name, server, registry, policy=policy) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


async def test_a_status_that_means_made_settles_the_call(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.ALREADY_EXISTS
    policy = ParkPolicy(reply=pending, idempotent=True, done_on={grpc.StatusCode.ALREADY_EXISTS})
    async with aio_shop(file, queue_name, server, registry, policy=policy) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert len(server.seen) == 1


@pytest.mark.parametrize(("sent", "reason"), [(False, "refused"), (True, "ambiguous")])
async def test_without_such_a_word_what_exists_may_be_of_the_calls_own_making(  # noqa: PLR0917 - fixtures
    file: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    sent: bool,  # noqa: FBT001 - a parameter of pytest's
    reason: str,
) -> None:
    server.answer = lambda key: grpc.StatusCode.ALREADY_EXISTS
    metadata = ((FIRST_SENT, ms_ago(1.0)),) if sent else ()
    async with aio_shop(file, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a", metadata=metadata)
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(file)
    assert dead.headers["fusewire-reason"] == reason


async def test_a_call_whose_key_was_cancelled_is_settled_at_once(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.FAILED_PRECONDITION
    server.trailing = (("fusewire-idempotency", "cancelled"),)
    async with aio_shop(file, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(file)
    assert dead.headers["fusewire-reason"] == "cancelled"
    assert len(server.seen) == 1


async def test_a_fallback_that_is_not_told_when_the_call_began_takes_the_present(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(file, queue_name, server, registry, forward=False) as shop:
        park = shop.calls.park(reply=pending, idempotent=True)
        call = park.prepare(CallInfo("/shop.Payments/Charge", "circuit", (), None))
        before = time.time()
        error: Any = grpc.aio.AioRpcError(
            grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata()
        )
        await park.reply(call, b"a", error)
        async with open_broker(file) as broker:
            (parked,) = await broker.peek(shop.calls.topology.parked("other"), limit=2)
    first_sent = parked.headers[FIRST_SENT]
    assert isinstance(first_sent, int)
    assert before * 1000 - 1 <= first_sent <= time.time() * 1000 + 1


async def test_a_forwarder_has_a_window_for_calls_that_were_stored_without_one(
    file: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    """By a release before windows, for example."""
    policy = ParkPolicy(idempotent=True, reply=pending, window=HOUR)
    metadata = ((FIRST_SENT, ms_ago(2 * HOUR)),)
    async with aio_shop(file, "charges", server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a", "op-a", metadata=metadata)
    recover(registry)
    channel = grpc.aio.insecure_channel(
        server.target, interceptors=aio_interceptors(registry=registry)
    )
    methods = {CHARGE: policy}
    async with ParkedCalls(file, queue="charges", registry=registry, methods=methods) as calls:
        events: list[Any] = []
        calls.add_listener(events.append)
        async with channel, calls.forward_to(channel):
            await until(lambda: [event.reason for event in events] == ["stale-key"])
    assert server.seen == []
