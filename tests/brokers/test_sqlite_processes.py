"""The embedded broker's file shared by processes, some of which die; and the leases behind that."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import SQLiteBroker
from tests.support.embedded_process import start
from tests.support.messages import number_of, numbered, publish_numbered, take, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.processes import KeptProcess


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with SQLiteBroker(path) as opened:
        await opened.create_queue("orders")
        await opened.create_queue("dead")
        yield opened


async def numbers_in(broker: SQLiteBroker, queue: str) -> Counter[int]:
    return Counter(number_of(message) for message in await broker.peek(queue, limit=100_000))


# -- processes -------------------------------------------------------------------------------------


async def test_several_processes_share_one_queue_without_overlap(
    path: Path, broker: SQLiteBroker
) -> None:
    with (
        start("move", path, "orders", "dead"),
        start("move", path, "orders", "dead"),
        start("move", path, "orders", "dead"),
    ):
        await publish_numbered(broker, "orders", range(600))

        async def all_moved() -> bool:
            return await broker.depth("dead") == 600

        await until(all_moved)

    assert await numbers_in(broker, "dead") == Counter(range(600))
    assert await broker.depth("orders") == 0


async def test_a_killed_receivers_messages_come_back_at_once_and_in_order(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    await publish_numbered(broker, "orders", range(5))
    # Its lease is an hour, so what comes back does so because it is dead.
    with start("hold", path, "orders", 3, ready) as holder:

        async def has_them() -> bool:
            return ready.exists()

        await until(has_them)
        assert await broker.depth("orders") == 2
        holder.kill()

        deliveries = await take(await broker.subscribe("orders", prefetch=5), 5)

    assert [number_of(delivery.message) for delivery in deliveries] == [0, 1, 2, 3, 4]
    assert [delivery.redelivered for delivery in deliveries] == [True] * 3 + [False] * 2


async def test_it_counts_the_receivers_that_died_with_a_message_and_no_releases(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("orders", numbered(1))
    for deaths in range(3):
        subscription = await broker.subscribe("orders", prefetch=1)
        [delivery] = await take(subscription, 1)
        assert delivery.returned == deaths
        await subscription.release()

        ready = tmp_path / f"ready {deaths}"
        with start("hold", path, "orders", 1, ready) as holder:
            await until(anyio.Path(ready).exists)
            holder.kill()

    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
    assert delivery.returned == 3
    assert delivery.redelivered


async def test_a_receiver_counts_until_its_process_has_died(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("dead", numbered(1))
    ready = anyio.Path(tmp_path / "ready")
    await broker.subscribe("orders", prefetch=1)
    with start("hold", path, "dead", 1, ready) as holder:
        await until(ready.exists)
        assert (await broker.receivers("orders"), await broker.receivers("dead")) == (1, 1)
        holder.kill()
    assert (await broker.receivers("orders"), await broker.receivers("dead")) == (1, 0)


async def test_a_message_that_is_moved_has_killed_nobody(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("orders", numbered(1))
    ready = anyio.Path(tmp_path / "ready")
    with start("hold", path, "orders", 1, ready) as holder:
        await until(ready.exists)
        holder.kill()
    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

    await delivery.move("dead", delivery.message)

    [moved] = await take(await broker.subscribe("dead", prefetch=1), 1)
    assert (delivery.returned, moved.returned) == (1, 0)


async def test_a_stopped_receiver_keeps_its_messages_and_blocks_nobody(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    await publish_numbered(broker, "orders", range(4))
    with start("hold", path, "orders", 2, ready) as holder:

        async def has_them() -> bool:
            return ready.exists()

        await until(has_them)
        holder.pause()

        for delivery in await take(await broker.subscribe("orders", prefetch=2), 2):
            assert number_of(delivery.message) in {2, 3}
            await delivery.move("dead", delivery.message)
        assert await broker.depth("dead") == 2


async def test_killing_movers_in_mid_load_loses_and_doubles_nothing(
    path: Path, broker: SQLiteBroker
) -> None:
    await publish_numbered(broker, "orders", range(1000))
    for seed in range(4):
        with start("move_and_die", path, "orders", "dead", 150, seed) as mover:

            async def is_dead(mover: KeptProcess = mover) -> bool:
                return not mover.running

            await until(is_dead)
    assert 600 <= await broker.depth("dead") < 1000
    with start("move", path, "orders", "dead"):

        async def all_moved() -> bool:
            return await broker.depth("dead") == 1000

        await until(all_moved)

    # A move is one transaction, so here not even a duplicate is allowed.
    assert await numbers_in(broker, "dead") == Counter(range(1000))
    subscription = await broker.subscribe("orders", prefetch=10)
    with anyio.move_on_after(0.2):  # long enough to find what a dead mover had in flight
        pytest.fail(f"left over: {await subscription.receive()}")


async def test_killing_a_publisher_loses_nothing_that_was_confirmed_to_it(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    log = tmp_path / "confirmed"
    with start("publish", path, "orders", 100_000, log) as publisher:

        async def is_in_the_middle() -> bool:
            return await broker.depth("orders") >= 300

        await until(is_in_the_middle)
        publisher.kill()

    # A last line that was cut off was not reported to anybody.
    confirmed = {int(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line}
    stored = await numbers_in(broker, "orders")
    assert len(confirmed) >= 200
    assert confirmed <= stored.keys()
    assert set(stored.values()) == {1}
    assert len(stored) < 100_000, "it was not killed in the middle"


async def test_a_crash_inside_a_move_leaves_the_original_where_it_was(
    path: Path, broker: SQLiteBroker
) -> None:
    await broker.publish("orders", numbered(1))
    with start("die_in_move", path, "orders", "dead") as mover:

        async def is_dead() -> bool:
            return not mover.running

        await until(is_dead)
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

    assert delivery.message == numbered(1)
    assert delivery.redelivered
    assert await broker.depth("dead") == 0


async def test_children_that_were_forked_in_the_middle_of_transactions_use_the_file(
    path: Path, broker: SQLiteBroker
) -> None:
    with start("fork", path, "orders", 5) as parent:

        async def has_ended() -> bool:
            return not parent.running

        await until(has_ended)

    assert await numbers_in(broker, "orders") == Counter(range(5))
