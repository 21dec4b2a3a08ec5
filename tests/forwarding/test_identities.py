"""A call for which PENDING was promised can be sent, whatever its id, its key and its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire._key_text import key_of_id
from fusewire.brokers import Message, open_broker
from fusewire.errors import CircuitOpenError
from fusewire.forwarding import PARKED_METADATA, ParkedCalls
from fusewire.forwarding._call import StoredCall
from fusewire.interceptors import guard
from fusewire.operation import operation
from fusewire.parking._history import History
from tests.forwarding.conftest import CHARGE, PaymentsServer
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.grpc_keys import key_of
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry

IDS = ["größe 支付", "two\nlines", "x" * 20_000]


@pytest.mark.parametrize("promise", [{"idempotent": True}, {"at_most_once": True}])
@pytest.mark.parametrize("operation_id", IDS, ids=["beyond ASCII", "line break", "long"])
async def test_a_call_of_an_operation_with_any_id_is_parked_and_made(  # noqa: PLR0917 - fixtures
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    operation_id: str,
    promise: dict[str, Any],
) -> None:
    async with aio_shop(address, queue_name, server, registry, **promise) as shop:
        trip(registry)
        with operation(operation_id):
            reply = await shop.charge("a")
        recover(registry)
        key = reply.removeprefix(b"pending:").decode()
        await until(lambda: shop.happened("replayed") == [key])
    assert server.effects == {key: b"a"}
    if len(operation_id) < 100:
        assert key == key_of(b"a", operation_id=operation_id, method=CHARGE)


async def test_an_id_that_was_stored_though_it_could_never_be_sent_is_sent_encoded(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    """By an earlier release, whose callers were promised that the call is made."""
    stored = f"größe/{CHARGE}/1"
    call = StoredCall(operation_id=stored, method=CHARGE, request=b"a")
    history = History(operation_id=stored, queue=queue_name, times_parked=1, key_scheme=0)
    async with aio_shop(address, queue_name, server, registry) as shop:
        async with open_broker(address) as broker:
            lane = shop.calls.topology.parked("other")
            await broker.publish(lane, history.to_headers(call.message(queue_name)))
        await until(lambda: shop.happened("replayed") == [stored])
    assert server.effects == {key_of_id(stored): b"a"}


@pytest.mark.parametrize(
    "stored", ["my own/17 %", "op-1/shop.Payments/Charge/2", " x ", "x" * 5000]
)
def test_an_id_that_can_be_sent_is_its_own_key(stored: str) -> None:
    assert key_of_id(stored) == stored


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 0.0, 1e300])
async def test_a_call_whose_deadline_makes_no_sense_is_made_with_the_forwarders(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, seconds: Any
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a", timeout=seconds)
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


async def test_a_deadline_that_an_earlier_release_stored_after_it_had_passed_is_not_used(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    call = StoredCall(operation_id="op-a", method=CHARGE, request=b"a", timeout=-1.0)
    history = History(operation_id="op-a", queue=queue_name, times_parked=1)
    async with aio_shop(address, queue_name, server, registry) as shop:
        async with open_broker(address) as broker:
            lane = shop.calls.topology.parked("other")
            await broker.publish(lane, history.to_headers(call.message(queue_name)))
        await until(lambda: shop.happened("replayed") == ["op-a"])


@pytest.mark.parametrize(
    "metadata", [(("x-tenant", "größe"),), (("X-Tenant", "x"),), (("x-tenant", "a\nb"),)]
)
def test_a_call_that_grpcio_would_not_send_is_not_promised(
    tmp_path: Path, queue_name: str, registry: BreakerRegistry, metadata: Any
) -> None:
    trip(registry)
    with ParkedCalls(f"sqlite:///{tmp_path}/x.db", queue=queue_name, registry=registry) as calls:
        park = calls.park(reply=pending, idempotent=True, metadata=["x-tenant"])
        with (
            guard(
                grpc.insecure_channel("127.0.0.1:1"), registry=registry, fallbacks={CHARGE: park}
            ) as channel,
            pytest.raises(CircuitOpenError) as caught,
        ):
            channel.unary_unary(CHARGE)(b"a", metadata=metadata, timeout=1)  # type: ignore[arg-type] # no serializer
    assert dict(tuple(caught.value.trailing_metadata()))[PARKED_METADATA] == "no"  # type: ignore[attr-defined] # of its subclass


@pytest.mark.parametrize("key", ["", "größe", "two\nlines", "x" * 5000])
def test_a_key_that_could_not_be_sent_later_is_not_promised(
    tmp_path: Path, queue_name: str, registry: BreakerRegistry, key: str
) -> None:
    trip(registry)
    with ParkedCalls(f"sqlite:///{tmp_path}/x.db", queue=queue_name, registry=registry) as calls:
        park = calls.park(reply=pending, idempotent=True)
        with (
            guard(
                grpc.insecure_channel("127.0.0.1:1"), registry=registry, fallbacks={CHARGE: park}
            ) as channel,
            pytest.raises(CircuitOpenError),
        ):
            channel.unary_unary(CHARGE)(b"a", metadata=(("idempotency-key", key),), timeout=1)  # type: ignore[arg-type] # no serializer


async def test_a_stored_call_whose_metadata_cannot_be_sent_is_dead_at_once(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    call = StoredCall(
        operation_id="op-a", method=CHARGE, request=b"a", metadata=(("x-tenant", "größe"),)
    )
    message: Message = call.message(queue_name)
    async with aio_shop(address, queue_name, server, registry) as shop:
        async with open_broker(address) as broker:
            lane = shop.calls.topology.parked("other")
            await broker.publish(
                lane, History(operation_id="op-a", times_parked=1).to_headers(message)
            )
        await until(lambda: shop.happened("dead") == ["op-a"])
        [dead] = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "malformed"
