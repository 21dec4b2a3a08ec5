"""Encrypted calls through an outage: keys that change, and keys that are wrong."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import Message, open_broker
from fusewire.forwarding import Encryption, KeyRing, Outcome, ParkedCalls
from fusewire.forwarding import _call_codec as codec_module
from fusewire.telemetry.health import Health
from tests.forwarding.encrypting import (
    MARKER,
    NEW,
    OLD,
    RIGHT,
    Keys,
    encryption,
    park,
    records,
    waiting,
)
from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.older_release import ROOT, extract_older_release
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forwarding.conftest import PaymentsServer
    from tests.support.rabbitmq import OwnRabbitMQ


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_PAUSE", 0.02)


@pytest.mark.parametrize("promise", [{"idempotent": True}, {"at_most_once": True}])
async def test_an_encrypted_call_is_made_as_it_was_asked_for(
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    promise: dict[str, Any],
) -> None:
    async def from_a_vault() -> KeyRing:
        return KeyRing({"old": OLD}, write_with="old")

    promise = {**promise, "metadata": ["tenant", "trace-bin"], "encryption": RIGHT}
    (key,) = await park(address, queue_name, server, MARKER, **promise, expires_after=300)
    async with aio_shop(
        address, queue_name, server, registry, encryption=Encryption(from_a_vault)
    ) as shop:
        await until(lambda: shop.happened("replayed") == [key])
    assert server.effects == {key: MARKER.encode()}
    (seen,) = [metadata for each, metadata in server.seen if each == key]
    assert (seen["tenant"], seen["trace-bin"]) == (MARKER, b"\0\xff")


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        encryption({"new": NEW}),
        # Under the right id: it is no sign of tampering.
        encryption({"old": NEW}),
    ],
    ids=["none", "another id", "another key"],
)
@pytest.mark.parametrize("promise", [{"idempotent": True}, {"at_most_once": True}])
async def test_a_wrong_deployment_stops_and_kills_nothing(  # noqa: PLR0917 - fixtures
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    wrong: Encryption | None,
    promise: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = await park(address, queue_name, server, "a", "b", "c", encryption=RIGHT, **promise)
    async with aio_shop(address, queue_name, server, registry, encryption=wrong) as shop:
        health = Health(registry, consumers=[shop.calls])
        await until(lambda: shop.calls.status().halted)
        await until(lambda: not shop.calls.status().running)
        assert "'old'" in shop.calls.status().halted
        (reason,) = health.readiness().reasons
        assert "has stopped" in reason
        assert health.liveness().passes
        assert await waiting(address, queue_name) == 3
        async with aio_shop(address, queue_name, server, registry, encryption=RIGHT) as other:
            await until(lambda: sorted(other.happened("replayed")) == sorted(ids))
        assert not await shop.dead(address)
    assert set(server.effects) == set(ids)
    (halted,) = [
        r for r in caplog.records if getattr(r, "fusewire_event", "") == "forwarder.halted"
    ]
    assert halted.levelname == "ERROR"


async def test_a_forwarder_goes_on_when_its_key_is_deployed(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    ids = await park(sqlite, queue_name, server, "a", "b", encryption=RIGHT)
    keys = Keys({"new": NEW})
    async with aio_shop(sqlite, queue_name, server, registry, encryption=Encryption(keys)) as shop:
        await until(lambda: shop.calls.status().halted)
        keys.give({"new": NEW, "old": OLD})
        await until(lambda: sorted(shop.happened("replayed")) == sorted(ids))
        assert not shop.calls.status().halted
        assert Health(registry, consumers=[shop.calls]).readiness().passes


async def test_a_reader_of_outcomes_that_lacks_a_key_is_not_ready_until_it_is_deployed(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    await park(sqlite, queue_name, server, "a", encryption=RIGHT)
    asking = {"outcomes": True}
    async with aio_shop(
        sqlite, queue_name, server, registry, encryption=RIGHT, calls=asking
    ) as shop:
        await until(lambda: shop.happened("replayed"))
    keys, outcomes = Keys({"new": NEW}), []

    async def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)

    async with ParkedCalls(
        sqlite, queue=queue_name, encryption=Encryption(keys), on_outcome=on_outcome
    ) as calls:
        await until(lambda: "'old'" in calls.status().halted)
        assert not Health(registry, consumers=[calls]).readiness().passes
        keys.give({"new": NEW, "old": OLD})
        await until(lambda: outcomes)
        assert not calls.status().halted


async def test_keys_change_during_a_run_and_no_forwarder_stops(
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop_keys, forwarder_keys = Keys({"0": OLD}), Keys({"0": OLD})
    parking = BreakerRegistry(BreakerSettings(failure_threshold=1))
    trip(parking)
    async with (
        aio_shop(
            address, queue_name, server, parking, forward=False, encryption=Encryption(shop_keys)
        ) as shop,
        aio_shop(
            address, queue_name, server, registry, encryption=Encryption(forwarder_keys)
        ) as forwarder,
    ):
        keys = {"0": OLD}
        for generation in range(1, 6):
            for number in range(4):
                await shop.charge(f"{generation}-{number}")
            keys[str(generation)] = bytes([generation]) * 32
            forwarder_keys.give(keys, "0")
            shop_keys.give(keys, str(generation))
            await shop.calls._codec.refresh()
        await until(lambda: len(server.effects) == 20)
        await until(lambda: len(forwarder.happened("replayed")) == 20)
        assert not await forwarder.dead(address)
        assert 2 <= forwarder_keys.asked <= 6
    assert sorted(server.effects.values()) == sorted(
        f"{generation}-{number}".encode() for generation in range(1, 6) for number in range(4)
    )
    assert not records(caplog, "forwarder.halted")


async def test_keys_that_cannot_be_loaded_again_stay_what_they_were(
    sqlite: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = Keys({"old": OLD})
    async with aio_shop(sqlite, queue_name, server, registry, encryption=Encryption(keys)) as shop:
        keys.error = ConnectionError("token-of-the-vault")
        await shop.calls._codec.refresh()
        trip(registry)
        await shop.charge("a")
        recover(registry)
        await until(lambda: len(shop.happened("replayed")) == 1)
    assert keys.asked == 2
    (record,) = records(caplog, "keys.not_loaded")
    assert "ConnectionError" in record.getMessage()
    assert "token-of-the-vault" not in caplog.text


async def test_keys_that_cannot_be_loaded_at_first_are_an_error(
    sqlite: str, queue_name: str
) -> None:
    keys = Keys({"old": OLD})
    keys.error = ConnectionError("the vault is away")
    with pytest.raises(ConnectionError, match="vault is away"):
        async with ParkedCalls(sqlite, queue=queue_name, encryption=Encryption(keys)):
            pass
    wrong: Any = lambda: "very secret"  # noqa: E731 - a value
    with pytest.raises(ValueError, match="must return a KeyRing, got str") as raised:
        async with ParkedCalls(sqlite, queue=queue_name, encryption=Encryption(wrong)):
            pass
    assert "very secret" not in str(raised.value)


async def test_calls_from_before_encryption_wait_until_they_are_accepted(
    sqlite: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    (key,) = await park(sqlite, queue_name, server, "a")
    async with aio_shop(sqlite, queue_name, server, registry, encryption=RIGHT) as shop:
        await until(lambda: "accept_plain=True" in shop.calls.status().halted)
        await until(lambda: not shop.calls.status().running)
        assert await waiting(sqlite, queue_name) == 1
    accepting = encryption({"old": OLD}, accept_plain=True)
    async with aio_shop(sqlite, queue_name, server, registry, encryption=accepting) as shop:
        await until(lambda: shop.happened("replayed") == [key])


async def test_an_earlier_release_sends_nothing_of_an_encrypted_call(
    sqlite: str,
    queue_name: str,
    server: PaymentsServer,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    older = extract_older_release(tmp_path_factory)
    await park(sqlite, queue_name, server, "a", "b", encryption=RIGHT)
    script = ROOT / "tests" / "support" / "fleet_caller.py"
    command = [sys.executable, script, sqlite, queue_name, server.target, tmp_path, "old"]
    environment = {**os.environ, "PYTHONPATH": str(older)}
    log = tmp_path / "old.log"

    async def dead() -> list[Message]:
        async with open_broker(sqlite) as broker:
            return await broker.peek(f"{queue_name}.dead", limit=3)

    async def both_dead() -> bool:
        return len(await dead()) == 2

    with KeptProcess([str(each) for each in command], env=environment, log=log):
        await until(both_dead, limit=60)
    assert {message.headers["fusewire-reason"] for message in await dead()} == {"malformed"}
    assert server.seen == []


async def test_neither_requests_nor_errors_are_in_the_brokers_files(
    sqlite: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
) -> None:
    found = await leave_in_files(sqlite, queue_name, server, registry, tmp_path)
    assert found == {"plain"}


@pytest.mark.long
async def test_nor_are_they_in_those_of_rabbitmq(
    private_rabbitmq: OwnRabbitMQ,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
) -> None:
    folder = getattr(private_rabbitmq, "directory", None)
    if folder is None:
        pytest.skip("needs a node whose files a test can read")
    found = await leave_in_files(private_rabbitmq.url, queue_name, server, registry, folder)
    assert found == {"plain"}


async def leave_in_files(
    address: str, queue: str, server: PaymentsServer, registry: BreakerRegistry, folder: Path
) -> set[str]:
    """Leave waiting, delayed and dead calls, encrypted and not; return whose texts are found."""
    markers = {"plain": "marker-in-the-clear", "secret": "marker-encrypted"}
    server.answer = lambda _: grpc.StatusCode.INVALID_ARGUMENT
    for kind, marker in markers.items():
        options: dict[str, Any] = {
            "encryption": RIGHT if kind == "secret" else None,
            "metadata": ["tenant"],
            "at_most_once": True,
        }
        server.details = marker
        trip(registry)
        async with aio_shop(address, f"{queue}-{kind}", server, registry, **options) as shop:
            await shop.charge(marker, metadata=(("tenant", marker),))
            recover(registry)
            await until(lambda: shop.events and shop.events[-1].outcome == "dead")
            (dead,) = await shop.dead(address)
            assert dead.headers["fusewire-exception"] == "grpc.RpcError"
        await park(address, f"{queue}-{kind}", server, marker, **options)
        await leave_outcome(address, f"{queue}-{kind}-outcomes", server, marker, **options)
    return {kind for kind, marker in markers.items() if is_in(folder, marker.encode())}


async def leave_outcome(
    address: str, queue: str, server: PaymentsServer, marker: str, **options: Any
) -> None:
    """Leave the outcome of a call whose reply has a text in it, and that nobody has read."""
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1, half_open_max_calls=1))
    trip(registry)
    server.answer, answer = lambda _: None, server.answer
    server.reply = marker.encode()
    options["calls"] = {"outcomes": True}
    async with aio_shop(address, queue, server, registry, **options) as shop:
        await shop.charge(marker)
        recover(registry)
        await until(lambda: len(shop.happened("replayed")) == 1)
    server.answer = answer


def is_in(folder: Path, marker: bytes) -> bool:
    return any(marker in path.read_bytes() for path in folder.rglob("*") if path.is_file())
