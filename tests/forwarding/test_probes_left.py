"""While calls wait in the lane of a circuit, they are its probes, and users wait for none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState
from fusewire.forwarding import ParkPolicy
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._handler import ReplayHandler
from fusewire.forwarding._probe_duty import ProbeDuty
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, pending, recover, sync_shop, trip
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc

    from tests.forwarding.conftest import PaymentsServer


@pytest.fixture
def registry() -> BreakerRegistry:
    """Provide circuits with room for more probes than one."""
    return BreakerRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=300, half_open_max_calls=3)
    )


@pytest.fixture
def hanging(server: PaymentsServer) -> Iterator[threading.Event]:
    """Provide a server that answers nothing until the event is set."""
    goes_on = threading.Event()

    def hang(_: str) -> grpc.StatusCode | None:
        goes_on.wait(60)
        return None

    server.answer = hang
    yield goes_on
    goes_on.set()


async def test_a_probe_of_a_server_that_hangs_ends_by_its_own_timeout(
    server: PaymentsServer, registry: BreakerRegistry, hanging: threading.Event, tmp_path: Path
) -> None:
    policy = ParkPolicy(reply=pending, idempotent=True, probe_timeout=0.5)
    address = f"sqlite:///{tmp_path}/b.db"
    async with aio_shop(address, "charges", server, registry, policy=policy) as shop:
        trip(registry)
        await shop.charge("a", "op-a", timeout=300)
        recover(registry)
        breaker = registry.get(CHARGE)
        await until(lambda: server.seen)
        await until(lambda: breaker.state is CircuitState.OPEN)
        hanging.set()
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


@pytest.mark.parametrize(
    ("by_hand", "timeout"),
    [("reset", 30), ("half_open", 2), ("force_open", 30), ("disable", 30), ("metrics_only", 30)],
)
def test_only_a_probe_has_the_timeout_of_probes(
    registry: BreakerRegistry, by_hand: str, timeout: float
) -> None:
    trip(registry)
    getattr(registry.get(CHARGE), by_hand)()
    policy = ParkPolicy(idempotent=True, probe_timeout=2)
    nothing: Any = None
    handler = ReplayHandler(
        nothing,
        nothing,
        30,
        stop=nothing,
        halt=nothing,
        methods={CHARGE: policy},
        circuit=registry.find,
    )
    call = StoredCall(operation_id="op-a", method=CHARGE, request=b"")
    assert handler._seconds_for(call) == timeout
    assert handler._seconds_for(replace(call, timeout=1)) == 1
    assert handler._seconds_for(replace(call, at_most_once=True)) == 30


async def test_a_user_does_not_wait_for_a_probe_of_a_server_that_hangs(
    server: PaymentsServer, registry: BreakerRegistry, hanging: threading.Event, tmp_path: Path
) -> None:
    async with aio_shop(f"sqlite:///{tmp_path}/b.db", "charges", server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        await until(lambda: shop.calls.status().lanes["other"].in_flight == 1)
        recover(registry)
        await until(lambda: server.seen)
        for number in range(5):
            key = f"op-{number}"
            assert await shop.charge("b", key) == f"pending:{key}".encode()
        assert [key for key, _ in server.seen] == ["op-a"]
        assert registry.get(CHARGE).look().state is CircuitState.HALF_OPEN
        hanging.set()
        await until(lambda: len(shop.happened("replayed")) == 6)
        assert registry.get(CHARGE).look().state is CircuitState.CLOSED
        assert await shop.charge("c", "op-c") == b"charged:op-c"


def test_nor_does_one_of_a_sync_channel(
    server: PaymentsServer, registry: BreakerRegistry, hanging: threading.Event, tmp_path: Path
) -> None:
    shop = sync_shop(f"sqlite:///{tmp_path}/b.db", "charges", server, registry)
    with shop as (calls, charge, events):
        trip(registry)
        charge(b"a", timeout=5)
        until_sync(lambda: calls.status().lanes["other"].in_flight == 1)
        recover(registry)
        until_sync(lambda: server.seen)
        began = time.monotonic()
        assert charge(b"b", timeout=50).startswith(b"pending:")
        assert time.monotonic() - began < 40  # the deadline was not waited for
        assert len(server.seen) == 1
        hanging.set()
        until_sync(lambda: len([e for e in events if e.outcome == "replayed"]) == 2)


async def test_where_nothing_is_forwarded_a_users_call_is_the_probe(
    server: PaymentsServer, registry: BreakerRegistry, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path}/b.db"
    async with aio_shop(address, "charges", server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a")
        recover(registry)
        assert await shop.charge("b", "op-b") == b"charged:op-b"


class Forwarder:
    """What is known of a forwarder."""

    def __init__(self) -> None:
        self.running = self.connected = True
        self.replaying, self.in_flight, self.ready = 0, 0, None

    def status(self) -> Any:
        ready = None if self.ready is None else SimpleNamespace(ready=self.ready)
        replays = {CHARGE: SimpleNamespace(in_flight=self.replaying)}
        lane = SimpleNamespace(in_flight=self.in_flight, ready=ready, replays=replays)
        return SimpleNamespace(
            running=self.running, connected=self.connected, lanes={"money": lane}
        )


@pytest.fixture
def forwarder() -> Any:
    return Forwarder()


@pytest.mark.parametrize(
    ("known", "left"),
    [
        ({}, False),
        ({"in_flight": 1}, True),
        ({"ready": 1}, True),
        ({"ready": 0}, False),
        ({"replaying": 1}, True),
        ({"in_flight": 1, "connected": False}, False),
        ({"in_flight": 1, "running": False}, False),
    ],
)
def test_a_probe_is_left_to_a_forwarder_that_has_calls_for_it(
    forwarder: Any, known: dict[str, int], left: object
) -> None:
    duty = ProbeDuty(lambda _: "money", lambda: 0.0)
    assert not duty.is_left(CHARGE, 1)
    duty.forwarder = forwarder
    for name, value in known.items():
        setattr(forwarder, name, value)
    assert duty.is_left(CHARGE, 1) is left


def test_a_forwarder_that_makes_no_probe_keeps_no_circuit_open(forwarder: Any) -> None:
    now = 100.0
    duty = ProbeDuty(lambda _: "money", lambda: now)
    duty.forwarder, forwarder.in_flight = forwarder, 1
    assert duty.is_left(CHARGE, 1)
    now += 4.9
    assert duty.is_left(CHARGE, 1)
    now += 0.1
    assert not duty.is_left(CHARGE, 1)
    forwarder.replaying = 1
    assert duty.is_left(CHARGE, 1)  # for as long as it probes
    forwarder.replaying = 0
    assert duty.is_left(CHARGE, 2)  # it is half open once more
