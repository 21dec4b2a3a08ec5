"""The truth table of the inbox in docs/exactly-once.md: what becomes of a message, and its effects.

Every test is a row. A few run on every store with all tests; the others on three, and on every
store with `make truth-table`. More rows are in `test_transactions.py` and `test_kills.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.errors import CircuitOpenError
from fusewire.idempotency import State
from fusewire.parking import Reject, Retry, RetryPolicy
from tests.inbox.conftest import first_time, raising
from tests.support.idempotent_places import PLACES
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.inbox.conftest import Shop

on_every_store = pytest.mark.parametrize("place", PLACES, ids=str)


@on_every_store
async def test_a_message_that_comes_again_is_acknowledged_and_the_handler_not_run(
    shop: Shop,
) -> None:
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        await shop.send("order")
        await shop.ends("handled", 2)
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1
    assert shop.records == 1


@on_every_store
async def test_an_error_rolls_back_and_the_next_attempt_runs(shop: Shop) -> None:
    shop.behave = first_time(shop, raising(ValueError("a bug")))
    await shop.send("order")
    async with shop.consumer():
        (failed,) = await shop.ends("delayed")
        await shop.ends("handled")
    assert failed.attempts == 1
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_what_always_fails_is_dead_and_leaves_nothing(shop: Shop) -> None:
    shop.behave = raising(ValueError("a bug"))
    await shop.send("order")
    async with shop.consumer(retry=RetryPolicy(delays=(0.05,), max_attempts=2)):
        (dead,) = await shop.ends("dead")
    assert dead.reason == "exhausted"
    assert shop.effects("order") == 0
    assert shop.records == 0


async def test_an_open_circuit_rolls_back_and_the_replay_runs(shop: Shop) -> None:
    payments = shop.registry.get("payments")

    def call(_: object) -> None:
        with contextlib.suppress(CircuitOpenError):
            payments.acquire().success()
            return
        raise CircuitOpenError("payments", "open", 0.1)

    shop.behave = call
    payments.force_open()
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("parked")
        assert shop.effects("order") == 0
        assert shop.records == 0
        payments.reset()
        await shop.ends("replayed")
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_a_rejected_message_is_dead_and_not_remembered(shop: Shop) -> None:
    shop.behave = first_time(shop, raising(Reject("not ours", reason="foreign")))
    await shop.send("order")
    async with shop.consumer():
        (dead,) = await shop.ends("dead")
        assert (dead.reason, shop.effects("order"), shop.records) == ("foreign", 0, 0)
        await shop.send("order")
        await shop.ends("handled")
    assert shop.effects("order") == 1


async def test_a_postponed_message_is_rolled_back_and_runs_later(shop: Shop) -> None:
    shop.behave = first_time(shop, raising(Retry("not yet", after=0.05)))
    await shop.send("order")
    async with shop.consumer():
        (postponed,) = await shop.ends("postponed")
        await shop.ends("handled")
    assert postponed.attempts == 0
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


def _swallow(message: Any) -> Any:
    async def swallow() -> None:
        with contextlib.suppress(ValueError):
            async with message.process():
                raise ValueError("a bug")

    return swallow()


SAYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reject": (lambda message: message.reject(), "dead"),
    "reject with requeue": (lambda message: message.reject(requeue=True), "delayed"),
    "nack": (lambda message: message.nack(), "delayed"),
    "an error within process()": (
        lambda message: setattr(message, "failure", ValueError("a bug")),
        "delayed",
    ),
}


@pytest.mark.parametrize(("say", "becomes"), SAYS.values(), ids=SAYS)
async def test_a_handler_that_says_no_and_returns_is_rolled_back(
    shop: Shop, say: Callable[[Any], Any], becomes: str
) -> None:
    if "process" in becomes and shop.place.aio:
        say = _swallow
    shop.behave = first_time(shop, say)
    await shop.send("order")
    async with shop.consumer():
        await shop.ends(becomes)
        if becomes == "dead":
            assert shop.effects("order") == 0
            assert shop.records == 0
            await shop.send("order")
        await shop.ends("handled")
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_an_error_behind_an_ack_is_a_failed_attempt(shop: Shop) -> None:
    def act(message: Any) -> None:
        message.ack()
        raise ValueError("a bug")

    shop.behave = first_time(shop, act)
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("delayed")
        await shop.ends("handled")
    assert shop.effects("order") == 1


@pytest.mark.parametrize("place", [place for place in PLACES if place.aio], ids=str)
async def test_a_handler_that_is_cancelled_is_rolled_back(shop: Shop) -> None:
    shop.behave = first_time(shop, lambda _: asyncio.sleep(60))
    await shop.send("order")
    async with shop.consumer(handler_timeout=0.2):
        (failed,) = await shop.ends("delayed")
        await shop.ends("handled")
    assert failed.error_type == "fusewire.parking.HandlerTimeoutError"
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_one_message_in_two_queues_is_handled_in_both(shop: Shop) -> None:
    async with shop.consumer(), shop.consumer(queue="mails", name="mails"):
        for queue in ("orders", "mails"):
            await shop.send("order", queue=queue)
            await shop.send("order", queue=queue)
        await shop.ends("handled", 4)
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 2
    assert shop.records == 2


async def test_another_body_under_an_operation_id_is_dead_as_key_reused(shop: Shop) -> None:
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        await shop.send("another")
        (dead,) = await shop.ends("dead")
    assert dead.reason == "key-reused"
    assert shop.runs["another"] == 0
    assert (shop.effects("order"), shop.effects("another")) == (1, 0)


@on_every_store
async def test_many_at_once_are_handled_once(shop: Shop) -> None:
    for _ in range(6):
        await shop.send("order")
    async with shop.consumer(concurrency=6):
        await shop.ends("handled", 6)
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1


@on_every_store
async def test_a_copy_is_postponed_while_the_first_takes_longer_than_the_wait(shop: Shop) -> None:
    go_on = threading.Event()

    def act(_: object) -> Any:
        if shop.place.aio:
            return asyncio.to_thread(go_on.wait, 30)
        return go_on.wait(30)

    shop.behave = act
    await shop.send("order")
    await shop.send("order")
    async with shop.consumer(wait=0.05):
        postponed = await shop.ends("postponed", 2)
        go_on.set()
        await shop.ends("handled", 2)
    assert {event.attempts for event in postponed} == {0}
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1


async def test_a_message_without_an_operation_id_is_dead_as_key_missing(shop: Shop) -> None:
    await shop.send("order", None)
    async with shop.consumer():
        (dead,) = await shop.ends("dead")
        assert dead.reason == "key-missing"
        # Nor is one recognized that was given an id when it was moved.
        shop.registry.get("payments").force_open()
    await shop.send("parked", None)
    async with shop.consumer(depends_on=["payments"]):
        await shop.ends("parked")
        shop.registry.get("payments").reset()
        (_, second) = await shop.ends("dead", 2)
        assert second.reason == "key-missing"
    async with shop.consumer(operation_id=lambda message: message.body.decode()):
        await shop.send("order", None)
        await shop.send("order", None)
        await shop.ends("handled", 2)
    assert shop.runs["order"] == 1
    assert shop.effects("parked") == 0


@pytest.mark.parametrize("operation", ["x" * 3000, "ü" * 512, "a\0b"], ids=["long", "wide", "NUL"])
async def test_operation_ids_of_any_form_are_recognized(shop: Shop, operation: str) -> None:
    headers = {"fusewire-operation-id": operation}
    message = Message(body=b"order", headers=headers)
    other = Message(body=b"other", headers={"fusewire-operation-id": operation + "x"})
    async with shop.consumer():
        for each in (message, message, other):
            await shop.broker.publish("orders", each)
        await shop.ends("handled", 3)
    assert (shop.runs["order"], shop.runs["other"]) == (1, 1)


async def test_after_the_time_that_messages_are_kept_one_is_handled_again(shop: Shop) -> None:
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        await shop.change(f"UPDATE {shop.database.keys} SET expires_at_ms = 0")  # noqa: S608 - ours
        await shop.send("order")
        await shop.ends("handled", 2)
    assert shop.effects("order") == 2


async def test_a_record_of_a_later_release_is_left_to_that_release(shop: Shop) -> None:
    await shop.send("order")
    async with shop.consumer(wait=0.05):
        await shop.ends("handled")
        await shop.change(f"UPDATE {shop.database.keys} SET format = 99")  # noqa: S608 - ours
        await shop.send("order")
        postponed = await shop.ends("postponed")
        assert postponed[0].attempts == 0
        await shop.change(f"UPDATE {shop.database.keys} SET format = 1")  # noqa: S608 - ours
        await shop.ends("handled", 2)
    assert shop.runs["order"] == 1


async def test_what_is_remembered_can_be_looked_at_and_forgotten(shop: Shop) -> None:
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        record = await _of(shop, "find")
        assert record is not None
        assert record.state == State.ANSWERED
        assert await _of(shop, "forget")
        await shop.send("order")
        await shop.ends("handled", 2)
    assert shop.effects("order") == 2


async def _of(shop: Shop, what: str) -> Any:
    found = getattr(shop.store, what)("consumer:orders", "a")
    return await found if shop.place.aio else found


async def test_expired_records_are_swept_beside_a_message(shop: Shop) -> None:
    await shop.send("order")
    async with shop.consumer(sweep=0.01):
        await shop.ends("handled")
        await shop.change(f"UPDATE {shop.database.keys} SET expires_at_ms = 0")  # noqa: S608 - ours
        await asyncio.sleep(0.02)  # a sweep is due
        await shop.send("another", "b")
        await shop.ends("handled", 2)
        await until(lambda: shop.records == 1)
    await until(lambda: not sweeping())  # it has a connection, which the test would leave behind


def sweeping() -> bool:
    """Return whether an inbox deletes records now."""
    coroutines = (task.get_coro() for task in asyncio.all_tasks())
    names = {getattr(coroutine, "__name__", "") for coroutine in coroutines}
    return "_aio_sweep" in names or "fusewire-sweep" in {
        each.name for each in threading.enumerate()
    }
