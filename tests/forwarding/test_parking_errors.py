"""What goes wrong is told by the call's error or on entering, a wrong setting when it is made."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.errors import CircuitOpenError, FusewireError, SettingsError
from fusewire.forwarding import OPERATION_ID_METADATA, PARKED_METADATA, ParkedCalls, Receipt
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._store import Entry
from tests.forwarding.conftest import CHARGE, PaymentsServer
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry


async def test_when_the_store_is_gone_the_caller_gets_the_error_and_the_operation_id(
    queue_name: str, server: PaymentsServer, registry: BreakerRegistry, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.calls.__aexit__(None, None, None)
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
    trailing = dict(tuple(caught.value.trailing_metadata()))  # type: ignore[attr-defined]
    assert trailing[OPERATION_ID_METADATA] == "op-a"
    assert trailing[PARKED_METADATA] == "no"


async def test_a_reply_function_that_fails_leaves_the_error_and_says_that_it_is_parked(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    def broken(request: bytes, receipt: Receipt) -> bytes:
        raise ValueError("no template")

    async with aio_shop(address, queue_name, server, registry, reply=broken) as shop:
        trip(registry)
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
        assert dict(tuple(caught.value.trailing_metadata()))[PARKED_METADATA] == "yes"  # type: ignore[attr-defined]
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])


async def test_a_store_that_does_not_confirm_in_time_is_reported_as_unknown(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        broker = shop.calls._store.broker
        assert broker is not None

        async def never(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        shop.calls._store._timeout = 0.1
        broker.publish = never
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
    assert dict(tuple(caught.value.trailing_metadata()))[PARKED_METADATA] == "unknown"  # type: ignore[attr-defined]


class _Unserializable:
    """A message of which grpcio, on asyncio, sends nothing."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        raise ValueError("it cannot be serialized")


async def test_a_request_that_cannot_be_serialized_is_not_parked_as_nothing(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        charge: Any = shop.channel.unary_unary(
            CHARGE, request_serializer=lambda request: request.SerializeToString()
        )
        with pytest.raises(CircuitOpenError) as caught:
            await charge(_Unserializable(), timeout=2)
    assert dict(tuple(caught.value.trailing_metadata()))[PARKED_METADATA] == "no"  # type: ignore[attr-defined]
    assert shop.happened("parked") == []
    assert server.seen == []


async def test_a_key_that_grpc_cannot_send_is_not_parked_with_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        with pytest.raises(Exception, match="_batch"):  # grpcio's own ways to say so
            await shop.charge("a", "schlüssel")
    assert shop.happened("parked") == []


async def test_a_forwarding_on_the_running_loop_says_how_to_end_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        assert shop.forwarding is not None
        with pytest.raises(RuntimeError, match="async with"), shop.forwarding:
            pass


A_CALL = StoredCall(operation_id="op-a", method=CHARGE, request=b"")


async def test_after_a_fork_the_error_says_what_to_do(
    queue_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(FusewireError, match="after the fork"):
            await calls._store.store(Entry(A_CALL, CHARGE))


async def test_a_sync_call_on_the_loops_own_thread_is_told_so_and_does_not_hang(
    queue_name: str, tmp_path: Path
) -> None:
    async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls:
        with pytest.raises(FusewireError, match="wait for itself"):
            calls._store.store_threadsafe(Entry(A_CALL, CHARGE))


async def test_an_unreachable_broker_is_reported_on_entering(
    queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with ParkedCalls("amqp://user:hidden@127.0.0.1:1/", queue=queue_name) as calls:
        assert not calls.status().connected
    (record,) = [each for each in caplog.records if "127.0.0.1:1" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "nothing is stored or forwarded until it can" in record.getMessage()
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "must be given one of"),
        ({"idempotent": True, "at_most_once": True}, "must be given one of"),
        ({"idempotent": True, "reply": None}, r"reply must be .*, got None"),
        ({"idempotent": True, "metadata": ["Authorization"]}, "authorization"),
        ({"idempotent": True, "metadata": "x-tenant"}, "metadata must be a list of keys"),
        ({"idempotent": True, "metadata": ["grpc-timeout"]}, "grpc-timeout"),
        ({"idempotent": True, "expires_after": -1}, r"expires_after must be .*, got -1"),
        ({"idempotent": True, "expires_after": float("nan")}, r"expires_after must be .*, got nan"),
    ],
)
def test_a_wrong_park_is_told_when_it_is_made(arguments: dict[str, Any], named: str) -> None:
    calls = ParkedCalls("amqp://localhost", queue="charges")
    with pytest.raises(SettingsError, match=named):
        calls.park(**{"reply": pending, **arguments})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"park_timeout": 0}, r"park_timeout must be .*, got 0"),
        ({"replay_timeout": float("inf")}, r"replay_timeout must be .*, got inf"),
        ({"queue": ""}, "queue must be a non-empty string"),
        ({"replay": "alone"}, r"replay must be a ReplayPolicy, or None, got 'alone'"),
        ({"retry": 5}, r"retry must be a RetryPolicy, or None, got 5"),
        ({"registry": {}}, r"registry must be a BreakerRegistry, or None, got {}"),
        ({"shutdown_timeout": -1}, r"shutdown_timeout must be .*, got -1"),
        ({"address": None}, r"the broker's address must be .*, got None"),
        ({"address": ""}, "the broker's address must be"),
        ({"address": ":memory:"}, r"the broker's address must be .*, got ':memory:'"),
        ({"address": "sqlite:///:memory:"}, "must be .*:memory:"),
        ({"lanes": {"eu": "charges"}}, r"lanes\['eu'\] must be a list"),
    ],
)
def test_a_wrong_setting_is_reported_when_it_is_made(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        ParkedCalls(**{"address": "amqp://localhost", "queue": "charges", **arguments})


async def test_forwarding_needs_a_channel_and_an_entered_store(
    queue_name: str, tmp_path: Path
) -> None:
    calls = ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(RuntimeError, match="enter"):
            calls.forward_to(channel)
        async with calls:
            with pytest.raises(SettingsError, match="channel must be a guarded"):
                calls.forward_to("127.0.0.1:1")  # type: ignore[arg-type]
            calls.forward_to(channel)
            with pytest.raises(RuntimeError, match="before"):
                calls.forward_to(channel)


def test_an_asyncio_channel_is_refused_by_a_store_with_a_loop_of_its_own(
    queue_name: str, tmp_path: Path
) -> None:
    async def main(calls: ParkedCalls) -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            calls.forward_to(channel)

    with (
        ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls,
        pytest.raises(SettingsError, match="async with"),
    ):
        asyncio.run(main(calls))
