"""Whatever a user puts into ids, reasons and names is stored, or is refused where it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker
from fusewire.brokers import Topology
from fusewire.errors import SettingsError
from fusewire.parking import ParkingConsumer, Reject
from tests.support.dependency import Dependency
from tests.support.messages import until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

HALF = "half a pair \ud800"  # UTF-8 has no bytes for it

ODD = pytest.mark.parametrize(
    "text",
    ["größe 支付", "two\nlines\r\n", "nul \x00 and \x7f", "x" * 20_000, " spaces ", "%2F/#?*"],
    ids=["beyond ASCII", "line breaks", "controls", "long", "spaces", "signs"],
)


@ODD
async def test_any_message_id_survives_parking_delay_and_death(bench: Bench, text: str) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    seen: list[str | None] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message.message_id)
        await dependency(message)
        raise ValueError("my own")

    await bench.send("a", message_id=text)
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("parked"))
        dependency.recover()
        await until(lambda: bench.happened("dead"))
    assert set(seen) == {text}
    assert {event.operation_id for event in bench.events} == {text}
    [dead] = await bench.dead()
    assert (dead.message_id, dead.headers["fusewire-operation-id"]) == (text, text)


@ODD
async def test_any_reason_of_a_rejection_is_stored(bench: Bench, text: str) -> None:
    def handler(_: AbstractIncomingMessage) -> None:
        raise Reject(f"because of {text}", reason=text)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])
    [dead] = await bench.dead()
    assert dead.headers["fusewire-reason"] == text
    assert [event.reason for event in bench.events] == [text]


@pytest.mark.parametrize("reason", ["", None, 5, b"rejected", HALF])
def test_a_reason_that_cannot_be_stored_is_refused(reason: Any) -> None:
    with pytest.raises(SettingsError, match="reason=…"):
        Reject("no", reason=reason)


async def test_a_handler_that_gives_such_a_reason_is_told(bench: Bench) -> None:
    def handler(_: AbstractIncomingMessage) -> None:
        raise Reject("no", reason=HALF)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    [dead] = await bench.dead()
    assert "surrogate" in str(dead.headers["fusewire-exception-message"])


@ODD
async def test_a_dependency_may_have_any_name(bench: Bench, text: str) -> None:
    dependency = Dependency(bench.registry, text)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on=text) as consumer:
        await until(lambda: bench.happened("parked") == ["a"])
        await until_depth(bench.broker, consumer.topology.parked(text), 1)
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert {event.dependency for event in bench.events} == {text}


@ODD
async def test_a_dependency_that_is_learnt_may_have_any_name(bench: Bench, text: str) -> None:
    dependency = Dependency(bench.registry, text)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert {event.dependency for event in bench.events} == {text}


def test_a_name_that_cannot_be_stored_is_refused(registry: Any) -> None:
    def consumer(**options: Any) -> ParkingConsumer:
        return ParkingConsumer(
            "sqlite:///x.db", handler=lambda _: None, registry=registry, **options
        )

    with pytest.raises(SettingsError, match="name must be"):
        CircuitBreaker(HALF)
    with pytest.raises(SettingsError, match="depends_on must be"):
        consumer(queue="q", depends_on=HALF)
    with pytest.raises(
        SettingsError, match=r"lanes\['lane'\] must be a string that UTF-8 can encode"
    ):
        consumer(queue="q", lanes={"lane": [HALF]})
    with pytest.raises(SettingsError, match="in lanes must be"):
        consumer(queue="q", lanes={HALF: ["payments"]})
    with pytest.raises(SettingsError, match="queue must be"):
        consumer(queue=HALF)
    with pytest.raises(SettingsError, match="exchange must be"):
        Topology("q", options={"exchange": HALF})


async def test_a_function_that_gives_what_cannot_be_stored_has_its_message_dead(
    bench: Bench,
) -> None:
    await bench.send("a", "b")

    def identity(message: AbstractIncomingMessage) -> str:
        return HALF if message.message_id == "a" else "fine"

    async with bench.consumer(lambda _: None, operation_id=identity):
        await until(lambda: bench.happened("dead") == ["a"])
        await until(lambda: bench.happened("handled") == ["fine"])
    [dead] = await bench.dead()
    assert dead.headers["fusewire-reason"] == "malformed"


async def test_an_error_may_say_anything(bench: Bench) -> None:
    def handler(_: AbstractIncomingMessage) -> None:
        raise ValueError(HALF)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    [dead] = await bench.dead()
    assert dead.headers["fusewire-exception-message"] == r"half a pair \ud800"
