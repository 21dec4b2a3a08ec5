"""What a status shows that has to be asked for: in the background, and only while it is wanted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from fusewire.brokers import Station, Topology
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    QueueNotFoundError,
    UnconfirmedError,
)
from fusewire.parking import _status_watch as watch_module
from fusewire.parking._lane_log import LaneLog
from fusewire.parking._status_watch import BrokerContact, StatusWatch
from fusewire.testing import FakeClock
from tests.support.logs import read_log
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fusewire.brokers import Broker

TOPOLOGY = Topology("orders", ("payments",))
SOURCE, LANE = Station("orders"), TOPOLOGY.parked("payments")


class Counts:
    """A broker that can only be asked for depths."""

    def __init__(self) -> None:
        self.depths: dict[Station, int | Exception] = {}
        self.asked: list[Station] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def depth(self, station: Station) -> int:
        self.asked.append(station)
        self.meanwhile()
        found = self.depths.get(station, 0)
        if isinstance(found, Exception):
            raise found
        return found


def run(watch: StatusWatch, broker: Broker, stopping: asyncio.Event) -> Coroutine[Any, Any, None]:
    return watch.run(broker, stopping, to_count=list, look=lambda: None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def contact(clock: FakeClock) -> BrokerContact:
    return BrokerContact("orders", clock)


@pytest.fixture
def watch(clock: FakeClock, contact: BrokerContact) -> StatusWatch:
    return StatusWatch(TOPOLOGY, contact, clock)


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def broker(counts: Counts) -> Broker:
    return cast("Any", counts)


def test_a_broker_that_was_not_asked_has_not_answered(contact: BrokerContact) -> None:
    assert not contact.answers


@pytest.mark.parametrize(
    ("kind", "answers"),
    {
        BrokerUnavailableError: False,
        UnconfirmedError: False,
        QueueNotFoundError: True,
        BrokerError: True,
    }.items(),
)
def test_an_error_is_an_answer_unless_it_says_that_none_came(
    contact: BrokerContact, kind: type[BrokerError], *, answers: bool
) -> None:
    contact.answered(contact.failures)
    contact.failed(kind("why"))
    assert contact.answers is answers


def test_it_is_known_since_when_it_answers(contact: BrokerContact, clock: FakeClock) -> None:
    clock.advance(5)
    contact.answered(contact.failures)
    clock.advance(5)
    contact.answered(contact.failures)
    assert contact.since == clock() - 5
    contact.left()
    assert (contact.answers, contact.since) == (False, clock())


def test_an_answer_to_what_was_asked_before_says_nothing(contact: BrokerContact) -> None:
    asked = contact.failures
    contact.answered(asked)
    contact.failed(BrokerUnavailableError("away"))
    contact.answered(asked)
    assert not contact.answers
    contact.answered(contact.failures)
    assert contact.answers


async def test_every_station_is_counted(
    watch: StatusWatch, broker: Broker, counts: Counts, clock: FakeClock
) -> None:
    counts.depths = {SOURCE: 3, LANE: 0}
    await watch.count(broker)
    assert watch.reading(SOURCE, clock()) == (3, clock())
    assert watch.reading(LANE, clock()) == (0, clock())
    assert set(counts.asked) == {*TOPOLOGY.stations, TOPOLOGY.delayed}


async def test_a_lane_is_not_taken_for_empty_when_a_message_came_while_it_was_counted(
    watch: StatusWatch, broker: Broker, counts: Counts, clock: FakeClock
) -> None:
    lane = LaneLog(LANE, clock, clock)

    def parked_behind_the_count() -> None:
        clock.advance(0.2)
        lane.parked("payments", "circuit_open")
        clock.advance(0.2)

    counts.meanwhile = parked_behind_the_count
    with read_log() as log:
        await watch.count(broker, [LANE])
        lane.look(watch.reading(LANE, clock()), 0)
        assert log.of("lane.drained") == []
        counts.meanwhile = lambda: None
        await watch.count(broker, [LANE])
        lane.look(watch.reading(LANE, clock()), 0)
        assert len(log.of("lane.drained")) == 1


async def test_it_is_known_when_a_station_was_empty(
    watch: StatusWatch, broker: Broker, counts: Counts, clock: FakeClock
) -> None:
    await watch.count(broker)
    empty_at = clock()
    clock.advance(5)
    counts.depths = {LANE: 1}
    await watch.count(broker)
    assert watch.empty_at(LANE) == empty_at


async def test_a_station_whose_messages_are_in_flight_is_not_empty(
    watch: StatusWatch, broker: Broker, clock: FakeClock
) -> None:
    stopping = asyncio.Event()
    stopping.set()
    held = {LANE: 6}
    await watch.run(
        broker,
        stopping,
        to_count=list,
        look=lambda: None,
        in_flight=lambda station: held.get(station, 0),
    )
    await watch.count(broker)
    assert watch.empty_at(LANE) is None
    assert watch.empty_at(SOURCE) == clock()
    held.clear()
    await watch.count(broker)
    assert watch.empty_at(LANE) == clock()


async def test_what_cannot_be_counted_is_not_known(
    watch: StatusWatch, broker: Broker, counts: Counts, contact: BrokerContact, clock: FakeClock
) -> None:
    await watch.count(broker)
    counts.depths = {LANE: QueueNotFoundError("gone")}
    await watch.count(broker)
    assert watch.reading(LANE, clock()) is None
    assert watch.reading(SOURCE, clock()) is not None
    assert contact.answers


async def test_a_broker_that_is_away_is_asked_once_a_round(
    watch: StatusWatch, broker: Broker, counts: Counts, contact: BrokerContact, clock: FakeClock
) -> None:
    await watch.count(broker)
    counts.asked.clear()
    counts.depths = {SOURCE: BrokerUnavailableError("away")}
    await watch.count(broker)
    assert counts.asked == [SOURCE]
    assert watch.reading(LANE, clock()) is None
    assert not contact.answers


async def test_an_old_count_is_not_known(
    watch: StatusWatch, broker: Broker, clock: FakeClock
) -> None:
    await watch.count(broker)
    clock.advance(30.1)
    assert watch.reading(SOURCE, clock()) is None


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.005)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.01)


@pytest.mark.usefixtures("fast")
async def test_nothing_is_counted_while_nobody_wants_it(
    watch: StatusWatch, broker: Broker, counts: Counts, clock: FakeClock
) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(run(watch, broker, stopping))
    beats: set[float] = set()

    def turned() -> int:
        beats.add(watch.turned_at or 0.0)
        clock.advance(0.001)
        return len(beats)

    await until(lambda: turned() > 10)
    assert counts.asked == []
    watch.want()
    await until(lambda: watch.reading(LANE, clock()) is not None)
    clock.advance(301)
    await asyncio.sleep(0)
    stopping.set()
    await running
    assert watch._timer is not None
    assert watch._timer.cancelled()


@pytest.mark.usefixtures("fast")
async def test_interest_ends(
    watch: StatusWatch, broker: Broker, counts: Counts, clock: FakeClock
) -> None:
    watch.want()
    clock.advance(301)
    stopping = asyncio.Event()
    running = asyncio.create_task(run(watch, broker, stopping))
    beats: set[float] = set()

    def turned() -> int:
        beats.add(watch.turned_at or 0.0)
        clock.advance(0.001)
        return len(beats)

    await until(lambda: turned() > 10)
    stopping.set()
    await running
    assert counts.asked == []


async def test_who_stops_does_not_wait_for_a_broker_that_does_not_answer(
    watch: StatusWatch, contact: BrokerContact
) -> None:
    asked = asyncio.Event()

    class Hung:
        async def depth(self, station: Station) -> int:
            asked.set()
            await asyncio.Event().wait()
            return 0

    stopping = asyncio.Event()
    watch.want()
    running = asyncio.create_task(run(watch, cast("Any", Hung()), stopping))
    await asyncio.wait_for(asked.wait(), 10)
    stopping.set()
    await asyncio.wait_for(running, 10)


@pytest.mark.parametrize("error", [asyncio.CancelledError, ZeroDivisionError])
async def test_what_ends_the_count_is_not_kept_silent(
    watch: StatusWatch, error: type[BaseException]
) -> None:
    class Broken:
        async def depth(self, station: Station) -> int:
            raise error

    watch.want()
    with pytest.raises(error):
        await run(watch, cast("Any", Broken()), asyncio.Event())
