"""The journal: what is in doubt after a kill or a lost connection, no less and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Broker, Message, SQLiteBroker, Topology
from fusewire.errors import DeliveryLostError, MoveRefusedError, UnconfirmedError
from fusewire.testing.faults import Journal, LossLedger, count_queues
from fusewire.testing.faults._journal import Entry, doubts, in_hand, read_journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fusewire.brokers import Delivery, Station

PREFETCH = 2


def through(*operations: str, subscription: int = 1) -> list[Entry]:
    """Write what a subscription notes that receives and acknowledges operations, one by one."""
    entries = [Entry("subscribed", "", subscription, f"{PREFETCH} q")]
    for operation in operations:
        entries += [
            Entry("received", operation, subscription),
            Entry("began", operation, subscription),
            Entry("settled", operation, subscription),
        ]
    return entries


def test_only_the_last_acknowledgements_of_a_subscription_may_not_have_come_through() -> None:
    # Never more than the prefetch is unacknowledged: what was delivered last proves the first.
    assert set(doubts(through(*"abcdefgh"))) == set("efgh")
    assert set(doubts(through(*"ab"))) == set("ab")
    both = [*through(*"abcdefgh"), *through(*"klmnop", subscription=2)]
    assert set(doubts(both)) == set("efghmnop")


def test_what_was_begun_and_not_settled_is_in_doubt_and_what_was_only_received_is_not() -> None:
    entries = [*through(*"abcdefgh"), Entry("received", "x", 1), Entry("received", "y", 1)]
    entries.append(Entry("began", "y"))
    assert set(doubts(entries)) == {"y", *"gh"}
    assert doubts(entries)["y"] == "it was begun and not settled"


def test_what_was_begun_and_comes_again_is_in_doubt_whatever_becomes_of_it() -> None:
    again = [Entry("began", "a"), Entry("received", "a", 1, redelivered=True)]
    settled = through(*"bcdefgh")
    assert "a" in doubts([*through("a"), *again, Entry("settled", "a", 1), *settled])


def test_a_second_copy_that_comes_while_the_first_is_in_flight_is_explained_by_nothing() -> None:
    copy = [Entry("began", "a"), Entry("received", "a", 1), Entry("settled", "a", 1)]
    later = through(*"bcdefghi")[1:]
    assert "a" not in doubts([*through("a"), *copy, *later])


def test_in_flight_is_what_was_received_and_neither_settled_nor_given_back() -> None:
    entries = [*through("a"), Entry("received", "b", 1)]
    assert in_hand(entries) == {"b"}
    assert in_hand([*entries, Entry("ended", "", 1)]) == set()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with SQLiteBroker(tmp_path / "broker.db") as broker:
        await broker.create_queue("q")
        await broker.prepare(Topology("q"))
        yield broker


async def received(broker: Broker, journal: Journal, *, prefetch: int = PREFETCH) -> Delivery:
    await broker.publish("q", Message(body=b"", message_id="op"))
    subscription = await journal.watch(broker).subscribe("q", prefetch=prefetch)
    return await subscription.receive()


async def test_a_watched_broker_does_what_the_broker_does_and_notes_it(
    broker: Broker, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    delivery = await received(broker, journal)
    await delivery.move(Topology("q").dead, delivery.message)
    assert await broker.depth("q") == 0
    noted = [(entry.what, entry.operation_id) for entry, _ in read_journal(tmp_path / "journal")]
    assert noted == [("subscribed", ""), ("received", "op"), ("began", "op"), ("settled", "op")]


async def test_a_watched_broker_counts_receivers_if_the_broker_does(
    broker: Broker, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    watched = journal.watch(broker)
    await watched.subscribe("q", prefetch=1)
    assert await watched.receivers("q") == 1
    former: Any = object()  # written before receivers were counted
    assert not hasattr(journal.watch(former), "receivers")


class Failing:
    """A delivery that cannot be moved."""

    def __init__(self, delivery: Delivery, error: Exception) -> None:
        self._delivery = delivery
        self._error = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._delivery, name)

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (UnconfirmedError("perhaps"), True),
        (DeliveryLostError("stored, and it comes again"), True),
        (MoveRefusedError("full"), False),
    ],
)
async def test_a_move_that_is_refused_leaves_no_doubt_and_one_that_is_unconfirmed_does(
    broker: Broker,
    tmp_path: Path,
    error: Exception,
    in_doubt: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    journal = Journal(tmp_path / "journal")
    delivery = await received(broker, journal, prefetch=1)
    delivery._delivery = Failing(delivery._delivery, error)  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        await delivery.move("elsewhere", delivery.message)
    await delivery.done()
    entries = [entry for entry, _ in read_journal(tmp_path / "journal")]
    later = [Entry("received", str(number), 1) for number in range(2)]
    assert ("op" in doubts([*entries, *later])) is in_doubt


def test_an_entry_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert list(read_journal(path)) == []
    journal = Journal(path)
    journal.began("a")
    ((entry, place),) = read_journal(path)
    assert entry == Entry("began", "a")
    line = path.read_bytes()
    path.write_bytes(line + line[:5])
    assert list(read_journal(path, place)) == []
    path.write_bytes(line + line)
    assert [entry for entry, _ in read_journal(path, place)] == [Entry("began", "a")]


def test_two_workers_cannot_share_a_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "journal")
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal")


async def test_the_ledger_reads_journals_and_counts_queues(broker: Broker, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    delivery = await received(broker, journal)
    topology = Topology("q")
    await delivery.move(topology.parked("other"), delivery.message)
    await broker.publish("q", delivery.message)
    ledger = LossLedger()
    ledger.published("op")
    await count_queues(ledger, broker, topology)
    assert ledger.sort().duplicated_unexplained == ("op",)
    ledger.read(tmp_path / "journal")
    assert ledger.sort().duplicated_explained == ledger.sort().parked == ("op",)
    assert ledger.sort().sound
