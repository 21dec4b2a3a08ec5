"""Replicas are counted where the broker can, and assumed where it cannot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Broker
from fusewire.errors import BrokerUnavailableError, QueueNotFoundError, UnconfirmedError
from fusewire.parking._replicas import ASSUMED_REPLICAS, Replicas
from tests.support.logs import read_log
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.parking.conftest import Bench


class Counting:
    """A broker that counts as it is told."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = iter(answers)
        self.asked: list[str] = []

    async def receivers(self, station: str) -> int:
        self.asked.append(station)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Former:
    """A broker that was written before receivers were counted."""

    def __repr__(self) -> str:
        return "Former()"


class Inheriting(Broker):
    """One that inherits from the protocol, and with it the empty method."""

    def __repr__(self) -> str:
        return "Inheriting()"


class WithoutCount:
    """An adapter of before, with all that it has but the count."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        if name == "receivers":
            raise AttributeError(name)
        return getattr(self._broker, name)


def replicas(broker: Any) -> Replicas:
    return Replicas(broker, "orders")


async def test_every_replica_of_the_source_queue_is_counted(bench: Bench) -> None:
    await bench.broker.create_queue(bench.queue)
    for number in (1, 2, 3):
        await bench.broker.subscribe(bench.queue, prefetch=10)
        assert await Replicas(bench.broker, bench.queue).count() == number


async def test_a_count_follows_what_the_broker_says() -> None:
    broker = Counting(4, 8, 2)
    counted = replicas(broker)
    assert [await counted.count() for _ in range(3)] == [4, 8, 2]
    assert broker.asked == ["orders"] * 3


async def test_a_broker_that_does_not_answer_is_not_said_by_each_lane() -> None:
    refused = [QueueNotFoundError("no orders")] * 3
    counted = replicas(Counting(BrokerUnavailableError("away"), UnconfirmedError("late"), *refused))
    with read_log(logger="fusewire.parking") as log:
        for _ in range(5):
            await counted.count()
    loud = [each["message"] for each in log.records() if each["levelname"] != "DEBUG"]
    assert loud == ["the receivers of 'orders' were not counted: no orders"]


async def test_none_at_all_is_no_count_because_this_replica_is_one() -> None:
    counted = replicas(Counting(0, 4, 0, 0))
    assert [await counted.count() for _ in range(4)] == [ASSUMED_REPLICAS, 4, 4, 4]


async def test_a_broker_that_cannot_be_reached_leaves_the_latest_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = BrokerUnavailableError("it is away")
    caplog.set_level(logging.DEBUG)
    counted = replicas(Counting(gone, 3, gone, 5))
    assert [await counted.count() for _ in range(4)] == [ASSUMED_REPLICAS, 3, 3, 5]
    assert "the receivers of 'orders' were not counted: it is away" in caplog.messages


@pytest.mark.parametrize("kind", [Former, Inheriting])
async def test_a_broker_that_does_not_count_is_named_once_and_ten_replicas_are_assumed(
    caplog: pytest.LogCaptureFixture, kind: type
) -> None:
    counted = replicas(kind())
    assert [await counted.count() for _ in range(3)] == [ASSUMED_REPLICAS] * 3
    (line,) = caplog.messages
    assert line.startswith(
        f"{kind.__name__}() does not count receivers, so the replays of 'orders' assume 10 replicas"
    )


async def test_a_consumer_parks_and_replays_on_a_broker_that_does_not_count(bench: Bench) -> None:
    without: Any = WithoutCount(bench.broker)
    assert not hasattr(without, "receivers")
    bench.broker = without
    breaker = bench.registry.get("payments")
    breaker.force_open()
    await bench.send("a", "b", "c")
    async with bench.consumer(lambda _message: None, depends_on="payments"):
        await until(lambda: sorted(bench.happened("parked")) == ["a", "b", "c"])
        breaker.reset()
        await until(lambda: sorted(bench.happened("replayed")) == ["a", "b", "c"])


async def test_while_this_replica_pauses_the_former_count_is_kept() -> None:
    counted = replicas(Counting(4, 8))
    assert await counted.count() == 4
    counted.receives = lambda: False
    assert await counted.count() == 4
    counted.receives = lambda: True
    assert await counted.count() == 8


async def test_it_is_known_when_they_were_counted_or_cannot_be() -> None:
    counted = replicas(Counting(0, BrokerUnavailableError("away"), 2))
    for known in (False, False, True):
        await counted.count()
        assert counted.known is known
    former = replicas(Former())
    await former.count()
    assert former.known
