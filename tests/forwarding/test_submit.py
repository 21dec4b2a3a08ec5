"""Calls that are queued without an attempt, and what limits how many are."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import open_broker
from fusewire.errors import BrokerError, FusewireError, SettingsError, UnconfirmedError
from fusewire.forwarding import NotQueuedError, ParkedCalls, ParkPolicy
from fusewire.forwarding._call import read_call
from fusewire.interceptors import aio_interceptors
from fusewire.operation import operation
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Message
    from tests.forwarding.conftest import PaymentsServer

POLICY = ParkPolicy(idempotent=True)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


async def waiting(calls: ParkedCalls, address: str, lane: str = "other") -> list[Message]:
    async with open_broker(address) as broker:
        return await broker.peek(calls.topology.parked(lane), limit=100)


async def test_a_submitted_call_is_made_without_an_attempt_of_its_caller(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True)
    async with aio_shop(address, queue_name, server, registry, policy=policy) as shop:
        receipt = await shop.calls.submit(CHARGE, b"a", operation_id="op-a")
        assert (receipt.operation_id, receipt.method) == ("op-a", CHARGE)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}
    assert [event.reason for event in shop.events if event.outcome == "parked"] == ["submitted"]


def test_a_submitted_call_waits_while_its_circuit_is_open(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async def main() -> None:
        policy = ParkPolicy(reply=pending, idempotent=True)
        async with aio_shop(file, queue_name, server, registry, policy=policy) as shop:
            trip(registry)
            await shop.calls.submit(CHARGE, b"a", operation_id="op-a")
            await until(lambda: shop.calls.status().lanes["other"].waits_for == (CHARGE,))
            assert server.seen == []
            recover(registry)
            await until(lambda: shop.happened("replayed") == ["op-a"])

    asyncio.run(main())


def test_sync_code_submits_too(file: str, queue_name: str) -> None:
    with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        receipt = calls.submit_sync(
            CHARGE, b"a", metadata=(("tenant", "t1"),), timeout=2.5, expires_after=60
        )
        (stored,) = asyncio.run(waiting(calls, file))
    assert stored.message_id == receipt.operation_id
    headers = stored.headers
    assert headers["fusewire-call-metadata"] == [["tenant", "t1"]]
    assert headers["fusewire-call-timeout-ms"] == 2500
    assert headers["fusewire-reason"] == "submitted"
    assert headers["fusewire-not-after-ms"] == pytest.approx(
        receipt.parked_at * 1000 + 60_000, abs=1
    )
    assert "fusewire-first-sent-ms" not in headers


async def test_a_call_is_stored_with_the_headers_that_say_something_of_it(
    file: str, queue_name: str
) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        await calls.submit(CHARGE, b"a")
        (stored,) = await waiting(calls, file)
    ours = {name for name in stored.headers if name.startswith("fusewire-call-")}
    assert ours == {"fusewire-call-format", "fusewire-call-method"}
    call = read_call("op", stored.body, stored.headers)
    assert (call.metadata, call.timeout, call.at_most_once) == ((), None, False)


async def test_a_submitted_call_is_no_sign_of_trouble(
    file: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        caplog.set_level(logging.INFO, "fusewire")
        await calls.submit(CHARGE, b"a")
        calls._status._look()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_calls_that_are_submitted_have_ids_of_their_own(file: str, queue_name: str) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        first = await calls.submit(CHARGE, b"a")
        second = await calls.submit(CHARGE, b"a")
    assert first.operation_id != second.operation_id


async def test_a_handler_that_runs_again_submits_under_the_same_ids(
    file: str, queue_name: str
) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:

        async def handle(message_id: str) -> list[str]:
            with operation(message_id):
                receipts = [await calls.submit(CHARGE, body) for body in (b"a", b"a", b"b")]
            return [receipt.operation_id for receipt in receipts]

        ids = await handle("order-1")
        assert await handle("order-1") == ids
        assert len({*ids, *await handle("order-2")}) == 6


@pytest.mark.parametrize(
    ("error", "same"), [(BrokerError("no"), True), (UnconfirmedError("who knows"), True)]
)
async def test_a_call_that_is_submitted_again_after_an_error_keeps_its_id(
    file: str, queue_name: str, monkeypatch: pytest.MonkeyPatch, error: Exception, *, same: bool
) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        tried: list[str] = []

        async def fail(entry: Any) -> None:
            tried.append(entry.call.operation_id)
            raise error

        with operation("order-1"):
            with monkeypatch.context() as patch:
                patch.setattr(calls._store, "store", fail)
                with pytest.raises(type(error)):
                    await calls.submit(CHARGE, b"a")
            receipt = await calls.submit(CHARGE, b"a")
    assert (tried == [receipt.operation_id]) is same


async def test_it_goes_to_the_lane_of_its_breaker(file: str, queue_name: str) -> None:
    async with ParkedCalls(
        file,
        queue=queue_name,
        lanes={"bank": ["bank:443"]},
        methods={CHARGE: ParkPolicy(idempotent=True, breaker="bank:443")},
    ) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        (stored,) = await waiting(calls, file, "bank")
    assert stored.message_id == "op-a"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "/shop.Payments/Chagre"}, r"did you mean '/shop.Payments/Charge'\?"),
        ({"operation_id": "naïve"}, "idempotency-key must be printable ASCII"),
        ({"operation_id": ""}, "idempotency-key must be printable ASCII"),
        ({"metadata": (("authorization", "x"),)}, "each key in metadata must be one that may be"),
        ({"metadata": (("a b", "x"),)}, "metadata must be pairs that gRPC can send"),
        ({"timeout": 0}, "timeout must be"),
        ({"expires_after": "1h"}, "expires_after must be"),
    ],
)
async def test_what_cannot_be_submitted_is_refused(
    file: str, queue_name: str, arguments: dict[str, Any], text: str
) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        with pytest.raises(SettingsError, match=text):
            await calls.submit(**{"method": CHARGE, "request": b"a", **arguments})


async def test_a_request_that_has_no_bytes_is_not_stored(file: str, queue_name: str) -> None:
    async with ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}) as calls:
        with pytest.raises(FusewireError, match="cannot be serialized: TypeError"):
            await calls.submit(CHARGE, 7)


async def test_nothing_is_submitted_before_entering(file: str, queue_name: str) -> None:
    with pytest.raises(FusewireError, match="is not entered"):
        await ParkedCalls(file, queue=queue_name, methods={CHARGE: POLICY}).submit(CHARGE, b"a")


# -- limits ----------------------------------------------------------------------------------------


def small(request: bytes) -> bool:
    return len(request) < 3


def broken(request: bytes) -> bool:
    raise LookupError(request)


@pytest.mark.parametrize("when", [small, broken])
async def test_what_may_not_be_queued_is_refused_and_its_caller_gets_the_error(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, when: Any
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True, when=when)
    async with aio_shop(file, queue_name, server, registry, policy=policy, forward=False) as shop:
        trip(registry)
        with pytest.raises(FusewireError) as caught:
            await shop.charge("large", "op-large")
        with pytest.raises(NotQueuedError, match="when"):
            await shop.calls.submit(CHARGE, b"large")
        trailing: Any = caught.value.trailing_metadata()  # type: ignore[attr-defined]
        assert dict(tuple(trailing))["fusewire-parked"] == "no"
        assert await waiting(shop.calls, file) == []


async def test_what_may_be_queued_is(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True, when=small)
    async with aio_shop(file, queue_name, server, registry, policy=policy, forward=False) as shop:
        trip(registry)
        assert await shop.charge("s", "op-s") == b"pending:op-s"


async def test_no_more_wait_in_a_lane_than_may(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True)
    async with aio_shop(
        file,
        queue_name,
        server,
        registry,
        policy=policy,
        forward=False,
        calls={"max_waiting": 3},
    ) as shop:
        trip(registry)
        lane = shop.calls.topology.parked("other")
        watch = shop.calls._status.watch
        await until(lambda: watch._readings.get(lane) is not None)
        for number in range(3):
            await shop.charge("s", f"op-{number}")
        with pytest.raises(FusewireError) as caught:
            await shop.charge("s", "op-3")
        trailing: Any = caught.value.trailing_metadata()  # type: ignore[attr-defined]
        assert dict(tuple(trailing))["fusewire-parked"] == "no"
        with pytest.raises(NotQueuedError, match=r"3 calls wait in .*, and max_waiting is 3"):
            await shop.calls.submit(CHARGE, b"s")
        async with open_broker(file) as broker:
            taking = await broker.subscribe(lane, prefetch=1)
            await (await taking.receive()).done()
            await watch.count(broker, [lane])
            await taking.release()
            await shop.calls.submit(CHARGE, b"s")
        assert len(await waiting(shop.calls, file)) == 3


async def test_a_lane_that_is_not_counted_yet_takes_calls(file: str, queue_name: str) -> None:
    methods = {CHARGE: POLICY}
    async with ParkedCalls(file, queue=queue_name, methods=methods, max_waiting=1) as calls:
        calls._status.watch._readings.clear()
        await calls.submit(CHARGE, b"a")


async def test_fallbacks_are_of_the_named_methods(file: str) -> None:
    refund = CHARGE.replace("Charge", "Refund")
    with_reply = ParkPolicy(reply=pending, idempotent=True)
    calls = ParkedCalls(file, queue="q", methods={CHARGE: with_reply, refund: POLICY})
    assert list(calls.fallbacks(CHARGE)) == [CHARGE]
    with pytest.raises(SettingsError, match=r"Refund'\] must have a reply="):
        calls.fallbacks()
    with pytest.raises(SettingsError, match="only what it names may be queued"):
        calls.fallbacks("/a.B/C")
    aio_interceptors(fallbacks=calls.fallbacks(CHARGE))
