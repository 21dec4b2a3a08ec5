"""Replays find the pace that their dependency bears: with a broker and a consumer that runs."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.operation import CallNote, current_operation
from fusewire.parking import ReplayFailure, _recovery, _replay_lane
from fusewire.parking._line import Line
from fusewire.parking._workers import participation
from tests.support.messages import until_depth
from tests.support.turning_away import PAYMENTS, StatusError
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

BODIES = [f"m{number:02}" for number in range(40)]


async def park(bench: Bench, *bodies: str, **headers: Any) -> None:
    """Put messages into the lane of payments, as if an outage had."""
    lane = f"{bench.queue}.parked.{PAYMENTS}"
    await bench.broker.create_queue(lane)
    known = {"fusewire-times-parked": 1, "fusewire-dependency": PAYMENTS, **headers}
    for body in bodies:
        message = Message(body=body.encode(), message_id=body, headers=known)
        await bench.broker.publish(lane, message)


class Refusing:
    """A server that refuses some calls, each so many times."""

    def __init__(self, **times: int) -> None:
        self.left = Counter(times)
        self.calls: list[str] = []
        self.seconds: float | None = None  # that a call is said to take

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        self.calls.append(body)
        operation = current_operation()
        assert operation is not None
        await asyncio.sleep(0)
        if self.left[body] > 0:
            self.left[body] -= 1
            operation.note(CallNote(PAYMENTS, "ignored", "RESOURCE_EXHAUSTED", None, "refused"))
            raise StatusError("RESOURCE_EXHAUSTED")
        operation.note_success(PAYMENTS)
        if self.seconds is not None:
            operation.note_duration(PAYMENTS, "", self.seconds)


async def test_a_replay_that_is_refused_begins_again_where_it_is(bench: Bench) -> None:
    server = Refusing(a=1)
    await park(bench, "a", "b", "c")
    async with bench.consumer(server, depends_on=PAYMENTS) as consumer:
        await until(lambda: len(bench.happened("replayed")) == 3)
        figures = consumer.replay_figures()[PAYMENTS][PAYMENTS]
    assert server.calls == ["a", "a", "b", "c"]
    assert bench.happened("parked") == bench.happened("delayed") == bench.happened("dead") == []
    assert figures.cuts[ReplayFailure.REFUSED] == 1


async def test_refused_twice_in_a_row_it_goes_to_the_tail_without_an_attempt(bench: Bench) -> None:
    server = Refusing(a=2)
    await park(bench, "a", "b", "c")
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=1):
        await until(lambda: len(bench.happened("replayed")) == 3)
    assert server.calls == ["a", "a", "b", "c", "a"]
    assert bench.happened("parked") == ["a"]
    assert bench.happened("dead") == []


async def test_refused_once_it_goes_to_the_tail_where_its_replica_would_hold_it_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery, "_SOON", 0.0)  # every paced replay is far away
    server = Refusing(a=1, b=1)
    server.seconds = 0.5
    await park(bench, "a", "b", "c")
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=1):
        await until(lambda: len(bench.happened("replayed")) == 3)
    assert server.calls == ["a", "a", "b", "c", "b"]  # only the first refusal made the window small
    assert bench.happened("parked") == ["b"]
    assert bench.happened("dead") == []


async def test_refusals_begin_no_pause(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    server = Refusing(a=2, b=2, c=2)  # of first deliveries, three in a row would begin one
    await park(bench, "a", "b", "c")
    async with bench.consumer(server, depends_on=PAYMENTS):
        await until(lambda: len(bench.happened("replayed")) == 3)
    assert server.calls[:6] == ["a", "a", "b", "b", "c", "c"]
    assert [each for each in caplog.records if each.module == "_pauses"] == []


async def test_a_message_that_is_refused_without_end_expires(bench: Bench) -> None:
    server = Refusing(a=1000)
    await park(bench, "a")
    async with bench.consumer(server, depends_on=PAYMENTS, max_age=0.5):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "expired"
    assert dead.headers["fusewire-refusals"] == len(server.calls)


async def test_replays_begin_in_the_order_of_their_lane_while_the_window_grows(
    bench: Bench,
) -> None:
    begun: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        begun.append(message.body.decode())
        await asyncio.sleep(0.002)

    # With one subscription: while there are two, the broker decides which of them gets a message.
    async with bench.consumer(handler, depends_on=PAYMENTS, replay_scope="cluster"):
        await park(bench, *BODIES)
        await until(lambda: len(bench.happened("replayed")) == 40)
    assert begun == BODIES


@pytest.fixture
def prefetches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the prefetches of the subscriptions to the lane of payments."""
    seen: list[int] = []
    subscribe = bench.broker.subscribe

    async def note(station: Any, *, prefetch: int) -> Any:
        if PAYMENTS in str(station):
            seen.append(prefetch)
        return await subscribe(station, prefetch=prefetch)

    monkeypatch.setattr(bench.broker, "subscribe", note)
    return seen


async def test_the_prefetch_grows_with_the_window(
    bench: Bench, prefetches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What replays really take on a busy machine makes the window small now and then.
    monkeypatch.setattr(_recovery, "_SHORT", math.inf)
    server = Refusing()
    server.seconds = 0.005
    await park(bench, *BODIES, *(f"{body}-2" for body in BODIES))
    async with bench.consumer(server, depends_on=PAYMENTS, replay_concurrency=8):
        await until(lambda: len(bench.happened("replayed")) == 80)
    assert prefetches[:3] == [1, 4, 8]  # and it shrinks when the lane is empty


async def test_a_replay_that_nobody_waits_before_does_not_stand_in_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    join = Line.join
    monkeypatch.setattr(
        Line, "join", lambda line, place: (joined.append(place.number), join(line, place))
    )
    await park(bench, *BODIES)
    # One at a time: each is there when nothing else is, and its handler takes no time to speak of.
    async with bench.consumer(lambda message: None, depends_on=PAYMENTS, replay_concurrency=1):
        await until(lambda: len(bench.happened("replayed")) == 40)
    assert len(joined) < 20


async def test_no_message_is_taken_for_one_that_was_seen_while_the_prefetch_grows(
    bench: Bench, prefetches: list[int]
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0.001)

    bodies = [f"m{number}" for number in range(300)]
    await park(bench, *bodies, **{"fusewire-at-most-once": True})
    async with bench.consumer(handler, depends_on=PAYMENTS):
        await until(lambda: len(bench.happened("replayed") + bench.happened("dead")) == 300)
    assert bench.happened("dead") == []
    assert len(prefetches) > 1


async def test_who_may_have_to_wait_for_others_subscribes_once(
    bench: Bench, prefetches: list[int]
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0.001)

    async with bench.consumer(
        handler, depends_on=PAYMENTS, replay_scope="cluster", replay_concurrency=8
    ):
        await park(bench, *BODIES)
        await until(lambda: len(bench.happened("replayed")) == 40)
    assert prefetches == [8]


class Fleet:
    """Many replicas, as the broker counts them, of which this one would come last."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 1000
        self._bench = bench
        self._receivers = bench.broker.receivers
        monkeypatch.setattr(bench.broker, "receivers", self._count)
        monkeypatch.setattr(_replay_lane, "turn_of", lambda *_: 0.999)
        monkeypatch.setattr(participation, "_LOOK", 0.05)

    async def _count(self, _station: Any) -> int:
        return self.size

    async def listeners(self) -> int:
        """Return how many really receive from the lane of payments."""
        return await self._receivers(f"{self._bench.queue}.parked.{PAYMENTS}")


@pytest.fixture
def fleet(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(bench, monkeypatch)


async def test_who_does_not_take_part_yet_holds_no_message_and_no_subscription(
    bench: Bench, fleet: Fleet, prefetches: list[int]
) -> None:
    calls: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(message.body.decode())

    breaker = bench.registry.get(PAYMENTS)
    breaker.force_open()
    await bench.send("a", "b", "c")
    async with bench.consumer(handler, depends_on=PAYMENTS) as consumer:
        await until(lambda: len(bench.happened("parked")) == 3)
        breaker.automatic()

        async def waits() -> bool:
            figures = consumer.replay_figures()[PAYMENTS].get(PAYMENTS)
            return figures is not None and figures.replicas == 1000

        await until(waits)
        assert await fleet.listeners() == 0
        await until_depth(bench.broker, f"{bench.queue}.parked.{PAYMENTS}", 3)
        assert not consumer.replay_figures()[PAYMENTS][PAYMENTS].taking_part
        assert calls == []
        assert prefetches == []
        fleet.size = 1
        await until(lambda: bench.happened("replayed") == ["a", "b", "c"])

        async def listens_once() -> bool:  # a subscription that another replaces ends in a moment
            return await fleet.listeners() == 1

        await until(listens_once)


async def test_what_others_have_parked_is_found_by_who_does_not_listen(
    bench: Bench, fleet: Fleet, prefetches: list[int]
) -> None:
    async with bench.consumer(lambda message: None, depends_on=PAYMENTS) as consumer:
        await park(bench, "a")

        async def found() -> bool:
            return PAYMENTS in consumer.replay_figures()[PAYMENTS]

        await until(found)
        assert await fleet.listeners() == 0
        assert prefetches == []
        fleet.size = 1
        await until(lambda: bench.happened("replayed") == ["a"])


async def test_a_replay_is_marked_as_one_and_a_first_delivery_is_not(bench: Bench) -> None:
    replays: dict[str, bool] = {}

    async def handler(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        replays[message.body.decode()] = operation.replay

    await park(bench, "parked")
    await bench.send("new")
    async with bench.consumer(handler, depends_on=PAYMENTS):
        await until(lambda: len(replays) == 2)
    assert replays == {"parked": True, "new": False}


async def test_a_handler_without_guarded_calls_is_compared_with_first_deliveries(
    bench: Bench,
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0.02)

    await bench.send(*(f"new-{number}" for number in range(25)))
    async with bench.consumer(handler, depends_on=PAYMENTS) as consumer:
        await until(lambda: len(bench.happened("handled")) == 25)
        await park(bench, "a")
        await until(lambda: bench.happened("replayed") == ["a"])
        figures = consumer.replay_figures()[PAYMENTS][PAYMENTS]
    assert figures.reference is not None
    assert figures.reference > 0.02


async def test_a_method_that_nobody_called_before_the_outage_is_replayed_as_fast_as_others(
    bench: Bench,
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        operation.note_duration(PAYMENTS, "/p.P/Refund", 0.05)

    bench.registry.measure_durations()
    durations = bench.registry.get(PAYMENTS).durations
    assert durations is not None
    for _ in range(100):
        durations.record(0.001, method="/p.P/Charge")
    await park(bench, *BODIES, *(f"{body}-2" for body in BODIES))
    async with bench.consumer(handler, depends_on=PAYMENTS) as consumer:
        await until(lambda: len(bench.happened("replayed")) == 80)
        figures = consumer.replay_figures()[PAYMENTS][PAYMENTS]
    assert figures.window > 2
    assert figures.slow_share == 0


async def test_dependencies_of_one_lane_have_a_controller_each(bench: Bench) -> None:
    await park(bench, "a")
    await park(bench, "b", **{"fusewire-dependency": "stock"})
    async with bench.consumer(lambda message: None, lanes={PAYMENTS: [PAYMENTS, "stock"]}) as one:
        await until(lambda: sorted(bench.happened("replayed")) == ["a", "b"])
        figures = one.replay_figures()
    assert set(figures) == {PAYMENTS, "other"}
    assert set(figures[PAYMENTS]) == {PAYMENTS, "stock"}
