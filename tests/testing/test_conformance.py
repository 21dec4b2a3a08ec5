"""The conformance kit fails on brokers that break what parking relies on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import (
    Capabilities,
    FoundMessage,
    Message,
    SQLiteBroker,
    Station,
    Topology,
)
from fusewire.brokers._names import queue_name
from fusewire.testing.conformance import BrokerConformance, Place, _messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DELAYS = (0.2, 60.0)


class Doubling(SQLiteBroker):
    """Stores each message twice."""

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        await super().publish(to, message, delay=delay)
        await super().publish(to, message, delay=delay)


class Hasty(SQLiteBroker):
    """Takes no notice of delays."""

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        await super().publish(to, message)


class Careless(SQLiteBroker):
    """Stores a message without its headers."""

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        await super().publish(to, Message(body=message.body), delay=delay)


class Reversed(SQLiteBroker):
    """Shows the newest first."""

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        return (await super().peek(station, limit=1000))[::-1][:limit]


class Absent(SQLiteBroker):
    """Makes a source queue that is not there."""

    async def prepare(self, topology: Topology) -> None:
        await self.create_queue(topology.source)
        await super().prepare(topology)


class Unmarked(SQLiteBroker):
    """Notes no mark."""

    async def mark(self, queue: str, mark: str) -> None:
        """Do nothing."""


class Shared(SQLiteBroker):
    """Lets several receive from a lane that is to have one receiver."""

    async def prepare(self, topology: Topology) -> None:
        await super().prepare(Topology(topology.source, topology.lanes, topology.delays))


class Uncounted(SQLiteBroker):
    """Counts what is in flight in place of those who receive, as some RabbitMQ did."""

    async def receivers(self, station: Station | str) -> int:
        return await self._run(
            lambda store: store._db.execute(
                "SELECT count(*) FROM messages JOIN queues ON queues.id = messages.queue"
                " WHERE name = ? AND receiver IS NOT NULL",
                (queue_name(station),),
            ).fetchone()[0]
        )


class Lonely(SQLiteBroker):
    """Counts its own subscriptions only."""

    async def receivers(self, station: Station | str) -> int:
        return min(await super().receivers(station), len(self._subscriptions))


class Blind(SQLiteBroker):
    """Finds what waits, and not what is in flight."""

    async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        found = await super().find(topology, message_id)
        return [each for each in found if not each.in_flight]


class Forceful(SQLiteBroker):
    """Removes what it finds now, whatever became of it since."""

    async def withdraw(
        self, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None = None
    ) -> bool:
        text = str(found[0].message.message_id)
        await self._run(
            lambda store: store._db.execute(
                "DELETE FROM messages WHERE instr(properties, ?)", (text,)
            )
        )
        return await super().withdraw((), instead)


class Slow(SQLiteBroker):
    """Keeps the delays of a topology only, and says so."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(any_delay=False)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Doubling, "test_messages_are_received_in_the_order_of_publishing"),
        (Hasty, "test_a_delayed_message_can_be_looked_at_and_does_not_wait_in_the_source"),
        (Hasty, "test_only_a_source_takes_a_delay"),
        (Careless, "test_a_published_message_outlives_the_broker_object"),
        (Reversed, "test_peek_shows_the_oldest_first_and_leaves_them"),
        (Absent, "test_a_source_queue_is_never_made_by_preparing"),
        (Unmarked, "test_a_mark_is_seen_by_others_until_it_is_taken_away"),
        (
            Uncounted,
            "test_receivers_of_all_processes_are_counted_and_not_what_they_have_in_flight",
        ),
        (Uncounted, "test_receivers_that_have_nothing_are_counted"),
        (Lonely, "test_receivers_that_have_nothing_are_counted"),
        (Lonely, "test_the_one_that_receives_counts_and_those_that_wait_may"),
        (Shared, "test_one_receives_and_the_next_takes_over_all_that_is_left_in_order"),
        (Blind, "test_what_is_in_flight_is_found_and_not_withdrawn"),
        (Forceful, "test_what_is_in_flight_is_found_and_not_withdrawn"),
        (Forceful, "test_what_was_received_since_it_was_found_is_not_withdrawn"),
        (Forceful, "test_all_that_was_found_is_withdrawn_or_nothing"),
    ],
)
async def test_a_broker_that_breaks_a_promise_fails_the_test_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: type[SQLiteBroker], test: str
) -> None:
    await run(test, lambda: SQLiteBroker(tmp_path / "right.db"))

    monkeypatch.setattr(_messages, "LIMIT", 1.0)
    # As pytest words it, or a wait that does not end.
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        await run(test, lambda: broken(tmp_path / "broken.db"))


async def test_what_a_broker_says_that_it_cannot_do_is_skipped(tmp_path: Path) -> None:
    test = "test_any_delay_is_kept_and_not_only_those_of_the_topology"

    with pytest.raises(pytest.skip.Exception, match="delays of the topology only"):
        await run(test, lambda: Slow(tmp_path / "broker.db"))


async def test_a_broker_that_cannot_be_searched_is_not_asked_to(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="cannot look up a message"):
        await run("test_only_the_id_itself_is_found", lambda: Slow(tmp_path / "broker.db"))


def test_a_kit_without_a_place_says_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match="override the fixture `place`"):
        BrokerConformance.place.__wrapped__(BrokerConformance())  # type: ignore[attr-defined]


async def run(test: str, make: Callable[[], SQLiteBroker]) -> None:
    """Run one test of the kit with the fixtures that it asks for."""
    method = getattr(BrokerConformance(), test)
    asked = method.__annotations__
    place, topology = Place(make, "orders"), Topology("orders", delays=DELAYS)
    given: dict[str, Any] = {"place": place, "topology": topology}
    if "single" in asked:
        given["single"] = Topology("orders-single", delays=DELAYS, single=True)
    async with make() as broker:
        if "broker" in asked:
            given["broker"] = broker
            for stations in (topology, given.get("single", topology)):
                await broker.create_queue(stations.source)
                await broker.prepare(stations)
        await method(**{name: value for name, value in given.items() if name in asked})
