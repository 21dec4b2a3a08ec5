"""Only an attempt that began by itself, and did not end, counts as a crash of its message."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from fusewire.brokers import Topology
from fusewire.errors import BrokerError, BrokerUnavailableError
from fusewire.parking import _marks, _solitude, _waiting
from fusewire.parking._marks import Marks
from fusewire.parking._waiting import Backoff
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Broker
    from tests.parking.conftest import Bench


async def marks_of(bench: Bench, operation_id: str) -> set[int]:
    """Return the numbers of the marks that are left of a message."""
    return {
        number
        for number in (1, 2, 3)
        if await bench.broker.is_marked(bench.queue, _marks._name(operation_id, number))
    }


async def mark(bench: Bench, operation_id: str, *numbers: int) -> None:
    """Leave marks, as processes do that crash."""
    for number in numbers:
        await bench.broker.mark(bench.queue, _marks._name(operation_id, number))


async def give_out_in_vain(bench: Bench) -> None:
    """Let a receiver have what comes next, and let it go back before anybody works on it."""
    subscription = await bench.broker.subscribe(bench.queue, prefetch=1)
    await subscription.receive()
    await subscription.release()


async def test_a_suspect_that_came_back_without_its_handler_being_called_is_not_dead(
    bench: Bench,
) -> None:
    await bench.send("suspect", headers={"fusewire-lone": 3})
    for _ in range(4):
        await give_out_in_vain(bench)

    async with bench.consumer(lambda _message: None):
        await until(lambda: bench.happened("handled") == ["suspect"])

    assert bench.happened("dead") == []


async def test_three_marks_that_were_left_make_it_dead(bench: Bench) -> None:
    if not bench.address.startswith("amqp"):
        pytest.skip("a receiver of SQLite's that lives on is never counted")
    calls: list[str] = []
    await bench.send("suspect", headers={"fusewire-lone": 3})
    await mark(bench, "suspect", 1, 2, 3)
    await give_out_in_vain(bench)

    async with bench.consumer(lambda message: calls.append(message.body.decode())):
        await until(lambda: bench.happened("dead") == ["suspect"])

        assert calls == []
        (dead,) = await bench.dead()
        assert dead.headers["fusewire-reason"] == "crashed"
        await until_marks(bench, set())


async def test_a_mark_stands_while_the_handler_runs_and_goes_with_the_rest_when_it_is_settled(
    bench: Bench,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_message: AbstractIncomingMessage) -> None:
        begun.set()
        await go_on.wait()

    await bench.send("suspect", headers={"fusewire-lone": 2})
    await mark(bench, "suspect", 1)
    async with bench.consumer(handler):
        await asyncio.wait_for(begun.wait(), 30)
        assert await marks_of(bench, "suspect") == {1, 2}
        go_on.set()
        await until(lambda: bench.happened("handled") == ["suspect"])

    assert await marks_of(bench, "suspect") == set()


async def test_a_process_that_stops_takes_its_own_mark_away_and_no_other(bench: Bench) -> None:
    begun = asyncio.Event()

    async def handler(_message: AbstractIncomingMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    await bench.send("suspect", headers={"fusewire-lone": 2})
    await mark(bench, "suspect", 1)
    async with bench.consumer(handler, shutdown_timeout=0):
        await asyncio.wait_for(begun.wait(), 30)

    assert await marks_of(bench, "suspect") == {1}


async def test_a_process_that_lost_the_delivery_takes_its_mark_away_while_the_handler_runs(
    bench: Bench,
) -> None:
    if not bench.address.startswith("amqp"):
        pytest.skip("there is no connection to lose")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_message: AbstractIncomingMessage) -> None:
        begun.set()
        await go_on.wait()

    await bench.send("suspect", headers={"fusewire-lone": 3})
    await mark(bench, "suspect", 1, 2)
    async with bench.consumer(handler):
        await asyncio.wait_for(begun.wait(), 30)
        assert await marks_of(bench, "suspect") == {1, 2, 3}
        await bench.drop_connection()
        await until_marks(bench, {1, 2})
        go_on.set()
        await until(lambda: "suspect" in bench.happened("handled"))

    assert bench.happened("dead") == []


async def until_marks(bench: Bench, wanted: set[int]) -> None:
    async def so() -> bool:
        return await marks_of(bench, "suspect") == wanted

    await until(so)


async def test_nothing_begins_beside_a_long_handler_while_its_mark_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_solitude, "_LONGEST_ALONE", 0.3)
    begun, go_on = asyncio.Event(), asyncio.Event()
    marks_beside: list[set[int]] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"suspect":
            begun.set()
            await go_on.wait()
        else:
            marks_beside.append(await marks_of(bench, "suspect"))

    await bench.send("suspect", headers={"fusewire-lone": 2})
    await mark(bench, "suspect", 1)
    async with bench.consumer(handler, concurrency=5):
        await asyncio.wait_for(begun.wait(), 30)
        assert await marks_of(bench, "suspect") == {1, 2}
        await bench.send("other")
        await until(lambda: bench.happened("handled") == ["other"])
        go_on.set()
        await until(lambda: "suspect" in bench.happened("handled"))

    assert marks_beside == [{1}]


class Refusing:
    """A broker that makes and deletes nothing, for as long as it has an error for it."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.marks: set[str] = set()

    async def mark(self, queue: str, mark: str) -> None:
        self._check(queue)
        self.marks.add(mark)

    async def unmark(self, queue: str, mark: str) -> None:
        self._check(queue)
        self.marks.discard(mark)

    async def is_marked(self, queue: str, mark: str) -> bool:
        self._check(queue)
        return mark in self.marks

    def _check(self, queue: str) -> None:
        assert queue == "orders"
        if self.error is not None:
            raise self.error


def alone(lone: int, *, lost: bool = False) -> Any:
    class Delivered:
        def __init__(self) -> None:
            self.lost = lost

    class Alone:
        def __init__(self) -> None:
            self.delivery = Delivered()
            self.history = type("Record", (), {"operation_id": "a"})()
            self.lone = lone

    return Alone()


def marks_on(broker: Any) -> Marks:
    placed: Broker = broker
    return Marks(placed, Topology("orders"))


async def test_where_no_mark_may_be_made_the_log_says_what_follows_and_nothing_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Refusing(BrokerError("ACCESS_REFUSED: grant it"))
    marks, work = marks_on(broker), alone(1)

    with caplog.at_level(logging.WARNING):
        await marks.begin(work)
        await marks.end(work.delivery)

    assert "cannot be counted" in caplog.text
    assert "grant it" in caplog.text
    assert await marks.left("a") == set()


async def test_a_mark_that_cannot_be_taken_away_now_is_taken_away_before_others_count() -> None:
    broker = Refusing(BrokerUnavailableError("away"))
    marks, work = marks_on(broker), alone(2)
    broker.error = None
    await marks.begin(work)
    assert await marks.left("a") == {2}

    broker.error = BrokerUnavailableError("away")
    await marks.end(work.delivery)
    assert len(broker.marks) == 1
    broker.error = None
    assert await marks.left("a") == set()

    assert broker.marks == set()


async def test_a_mark_that_was_taken_away_with_the_loss_is_not_taken_from_who_made_it_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_marks, "_LOOK", 0.01)
    broker = Refusing(BrokerError("none"))
    broker.error = None
    here, elsewhere, work = marks_on(broker), marks_on(broker), alone(1, lost=True)
    await here.begin(work)
    await until(lambda: not broker.marks)
    _, watch = here._made[work.delivery]
    await watch.finish()

    other = alone(1)
    await elsewhere.begin(other)
    await here.end(work.delivery)

    assert len(broker.marks) == 1
    await elsewhere.end(other.delivery)
    assert broker.marks == set()


@pytest.mark.parametrize("error", [BrokerUnavailableError("away"), ValueError("a defect")])
async def test_a_mark_that_cannot_be_taken_away_early_is_tried_again_after_growing_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(_marks, "_LOOK", 0.01)
    monkeypatch.setattr(_waiting, "_FIRST", 0.001)
    waits: list[float] = []
    draw = Backoff.draw

    def noted(self: Backoff) -> float:
        waits.append(draw(self))
        return waits[-1]

    monkeypatch.setattr(Backoff, "draw", noted)
    broker = Refusing(error)
    broker.error = None
    marks, work = marks_on(broker), alone(1, lost=True)
    await marks.begin(work)
    broker.error = error
    shared: list[object] = []
    monkeypatch.setattr(_solitude.process, "share", shared.append)
    await until(lambda: len(waits) >= 5)
    assert shared == []
    broker.error = None
    await until(lambda: shared == [work.delivery])

    assert broker.marks == set()
    assert waits[4] > waits[0]
    assert "stays for now" in caplog.text or isinstance(error, BrokerError)
    await marks.end(work.delivery)


@pytest.mark.parametrize("then", ["the handler ends", "the delivery is lost"])
async def test_a_mark_whose_watch_somebody_else_cancels_is_taken_away_in_the_end(then: str) -> None:
    broker = Refusing(BrokerError("none"))
    broker.error = None
    marks, work = marks_on(broker), alone(1)
    await marks.begin(work)
    [watch] = [each for each in asyncio.all_tasks() if "the watch over" in each.get_name()]
    watch.cancel()
    await asyncio.wait([watch])
    if then == "the handler ends":
        await marks.end(work.delivery)
    else:
        cast("Any", work.delivery).lost = True
        await until(lambda: broker.marks == set())
        await marks.end(work.delivery)
    assert broker.marks == set()
