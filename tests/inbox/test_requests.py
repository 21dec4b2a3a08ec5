"""What becomes of messages is counted by consumer and result, for metrics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.parking import Reject, RetryPolicy
from tests.inbox.conftest import first_time, raising
from tests.support.idempotent_places import SYNC_AND_AIO
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.inbox.conftest import Shop

both = pytest.mark.parametrize("place", SYNC_AND_AIO, ids=["sync", "aio"])
aio = pytest.mark.parametrize("place", [each for each in SYNC_AND_AIO if each.aio], ids=["aio"])


def counted(shop: Shop) -> dict[str, int]:
    """Return the results that there were, and how often."""
    counts = shop.store.request_counts()
    assert {method for method, _ in counts} == {"consumer:orders"}
    return {result: count for (_, result), count in counts.items() if count}


@both
async def test_messages_are_counted_by_what_became_of_them(shop: Shop) -> None:
    shop.behave = first_time(shop, raising(ValueError("a bug")))
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        assert counted(shop) == {"failed": 1, "made": 1}
        await shop.send("order")
        await shop.ends("handled", 2)
        await shop.send("other")
        await shop.ends("dead")
        await shop.send("other", None)
        await shop.ends("dead", 2)
        assert counted(shop) == {
            "failed": 1,
            "made": 1,
            "replayed": 1,
            "key-reused": 1,
            "key-missing": 1,
        }


@both
async def test_what_a_handler_rejects_has_no_result_of_its_own(shop: Shop) -> None:
    shop.behave = raising(Reject("not ours", reason="foreign"))
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("dead")
        assert counted(shop) == {"failed": 1}


@both
async def test_a_copy_during_the_first_is_counted(shop: Shop) -> None:
    go_on = threading.Event()

    def slow(_: object) -> object:
        if shop.place.aio:
            return until(go_on.is_set)
        return go_on.wait(20)

    shop.behave = slow
    await shop.send("order")
    await shop.send("order")
    async with shop.consumer(wait=0.05):
        await until(lambda: counted(shop).get("busy", 0) >= 1, "a copy that is busy")
        go_on.set()
        await shop.ends("handled", 2)
    assert counted(shop).items() >= {"made": 1, "replayed": 1}.items()


@aio
async def test_a_handler_that_is_cancelled_is_counted_as_failed(shop: Shop) -> None:
    shop.behave = lambda _: until(lambda: False)
    await shop.send("order")
    async with shop.consumer(handler_timeout=0.05, retry=RetryPolicy(max_attempts=1)):
        await shop.ends("dead")
        assert counted(shop) == {"failed": 1}
