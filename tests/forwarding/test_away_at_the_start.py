"""Shops and forwarders start before their broker, and forwarders end on signals."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.errors import BrokerError, CircuitOpenError
from fusewire.forwarding import PARKED_METADATA, ParkedCalls
from fusewire.interceptors import aio_interceptors, guard
from fusewire.telemetry.health import Health
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, recover, sync_shop, trip
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer


@pytest.fixture
def queue_name() -> str:
    """Provide a name for a file of the test's own, which needs no RabbitMQ."""
    return "charges"


@pytest.fixture
def away(tmp_path: Path) -> str:
    """Provide the address of a file in a folder that is not there yet."""
    return f"sqlite:///{tmp_path}/later/broker.db"


def arrive(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()


async def test_a_shop_and_a_forwarder_start_before_their_broker(  # noqa: PLR0917 - fixtures
    away: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "fusewire.forwarding")
    async with aio_shop(away, queue_name, server, registry) as shop:
        assert not shop.calls.status().connected
        health = Health(registry, consumers=[shop.calls])
        await until(lambda: health.readiness().passes)  # for a minute, as when it goes away later
        assert await shop.charge("made", "op-made") == b"charged:op-made"
        trip(registry)
        with pytest.raises(CircuitOpenError) as raised:
            await shop.charge("lost", "op-lost")
        trailing: Any = raised.value
        assert (PARKED_METADATA, "no") in tuple(trailing.trailing_metadata())
        assert shop.calls.status().moves_refused["unavailable"] == 1
        arrive(tmp_path)
        await until(lambda: shop.calls.status().connected)
        assert await shop.charge("kept", "op-kept") == b"pending:op-kept"
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-kept"])
    events = [getattr(record, "fusewire_event", "") for record in caplog.records]
    assert (events.count("broker.lost"), events.count("broker.back")) == (1, 1)


def test_a_sync_shop_starts_before_its_broker(
    away: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
) -> None:
    with sync_shop(away, queue_name, server, registry) as (calls, charge, events):
        trip(registry)
        with pytest.raises(CircuitOpenError):
            charge(b"a", timeout=5)
        arrive(tmp_path)
        until_sync(lambda: calls.status().connected)
        assert charge(b"b", timeout=5).startswith(b"pending:")
        recover(registry)
        until_sync(lambda: [event for event in events if event.outcome == "replayed"])


async def test_a_store_that_is_left_before_its_broker_came_is_left(
    away: str, queue_name: str, tmp_path: Path
) -> None:
    async with ParkedCalls(away, queue=queue_name):
        pass
    arrive(tmp_path)
    async with asyncio.timeout(30), ParkedCalls(away, queue=queue_name) as calls:
        assert calls.status().connected


async def test_what_is_no_store_is_an_error_at_once(queue_name: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("no database, and longer than the header of one" * 99)
    with pytest.raises(BrokerError, match=r"other\.txt"):
        async with ParkedCalls(f"sqlite:///{tmp_path}/other.txt", queue=queue_name):
            pass


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Provide the signals that the program's own handler hears."""
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, former)


async def test_a_forwarder_that_runs_ends_on_sigterm_and_its_replay_ends_before(
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
    heard: list[int],
) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
    recover(registry)
    answering, answer = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(_: str) -> grpc.StatusCode | None:
        loop.call_soon_threadsafe(answering.set)
        asyncio.run_coroutine_threadsafe(answer.wait(), loop).result(30)
        return None

    server.answer = slowly
    async with ParkedCalls(address, queue=queue_name, registry=registry) as calls:
        interceptors = aio_interceptors(registry=registry)
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            running = asyncio.create_task(calls.run(channel))
            await answering.wait()
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: heard == [signal.SIGTERM])
            assert not running.done()
            answer.set()
            await running
    assert server.effects == {"op-a": b"a"}


def test_a_sync_program_that_forwards_ends_on_sigterm(
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
    heard: list[int],
) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    with sync_shop(address, queue_name, server, registry) as (_, charge, events):
        trip(registry)
        charge(b"a", timeout=5)
        until_sync(lambda: [event.outcome for event in events] == ["parked"])
    recover(registry)
    calls = ParkedCalls(address, queue=queue_name, registry=registry)
    calls.add_listener(lambda _: signal.raise_signal(signal.SIGTERM))
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        calls.run_sync(channel)
    assert heard == [signal.SIGTERM]
    assert list(server.effects.values()) == [b"a"]
    assert registry.find(CHARGE) is not None


def test_a_store_with_a_loop_of_its_own_is_not_run_on_another(
    queue_name: str, tmp_path: Path
) -> None:
    with (
        ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls,
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(RuntimeError, match="async with"),
    ):
        asyncio.run(calls.run(channel))
