"""A forwarder does not stop in silence: whatever ends it, it is started again, and says so."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.parking import ParkingConsumer
from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer


@pytest.mark.parametrize("where", ["__aenter__", "run"])
@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no more files"), RecursionError()])
async def test_a_forwarder_that_ends_by_an_error_goes_on_and_says_so(  # noqa: PLR0917 - fixtures
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: Exception,
) -> None:
    works = getattr(ParkingConsumer, where)
    failures = [error, error]

    async def fail_twice(consumer: ParkingConsumer, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await works(consumer, **options)

    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        monkeypatch.setattr(ParkingConsumer, where, fail_twice)
        shop.forward()
        await until(lambda: shop.happened("replayed") == ["op-a"])
    said = [record for record in caplog.records if record.name == "fusewire.forwarding"]
    assert [record.levelno for record in said] == [logging.ERROR] * 2
    for record in said:
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert f"the forwarder of queue '{queue_name}'" in record.getMessage()


async def test_a_forwarder_that_is_cancelled_by_somebody_else_goes_on_and_says_so(
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = f"the forwarder of queue {queue_name!r}"
    async with aio_shop(address, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
        [task] = [each for each in asyncio.all_tasks() if each.get_name() == name]
        task.cancel()
        await until(lambda: f"{name} was cancelled by something else" in caplog.text)
        trip(registry)
        await shop.charge("b", "op-b")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a", "op-b"])
    assert server.effects == {"op-a": b"a", "op-b": b"b"}


async def test_a_proxys_404_does_not_end_a_parked_call(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNIMPLEMENTED if len(server.seen) < 3 else None
    async with aio_shop(address, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
        assert shop.happened("dead") == []
    assert server.effects == {"op-a": b"a"}
