"""Work in the background does not stay down, and says what ended it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from fusewire._background import Background
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER = logging.getLogger("fusewire.test")


class Work:
    """Runs until it is told to end; notes its starts."""

    def __init__(self) -> None:
        self.starts = 0
        self.over = asyncio.Event()
        self.fail: Callable[[], None] = lambda: None

    async def run(self) -> None:
        self.starts += 1
        self.fail()
        await self.over.wait()


def background(work: Work, *, first_wait: float = 0.01) -> Background:
    return Background(work.run, name="the work", logger=LOGGER, first_wait=first_wait)


def task() -> asyncio.Task[object]:
    [found] = [each for each in asyncio.all_tasks() if each.get_name() == "the work"]
    return found


async def test_what_returns_is_done_and_is_not_started_again() -> None:
    work = Work()
    work.over.set()
    running = background(work)
    await asyncio.wait_for(running.finish(), 10)
    assert running.done
    assert work.starts == 1


async def test_what_an_error_ends_is_started_again_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()

    def fail() -> None:
        if work.starts < 3:
            raise LookupError("a defect")
        work.over.set()

    work.fail = fail
    running = background(work)
    await until(lambda: running.done)
    assert work.starts == 3
    assert caplog.messages == ["the work ended by an error and is started again"] * 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("begun", [True, False])
async def test_what_somebody_else_cancels_is_started_again_and_says_so(
    caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    work = Work()
    running = background(work)
    if begun:
        await until(lambda: work.starts == 1)
    task().cancel()
    await until(lambda: work.starts == 1 + begun)
    assert caplog.messages == ["the work was cancelled by something else and is started again"]
    assert caplog.records[0].exc_info
    running.cancel()
    await asyncio.wait_for(running.finish(), 10)


async def test_what_was_cancelled_on_purpose_stays_down_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    running = background(work)
    await until(lambda: work.starts == 1)
    running.cancel()
    await asyncio.wait_for(running.finish(), 10)
    assert (running.done, work.starts, caplog.messages) == (True, 1, [])


async def test_one_that_waits_for_its_next_start_ends_at_once() -> None:
    work = Work()
    running = background(work, first_wait=3600)
    await until(lambda: work.starts == 1)
    task().cancel()
    await until(lambda: running._timer is not None)
    await asyncio.wait_for(running.finish(), 10)
    assert (running.done, work.starts) == (True, 1)


async def test_the_waits_grow_to_the_longest_and_begin_anew_after_a_long_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    call_later, now = loop.call_later, 0.0
    work = Work()

    def fail() -> None:
        nonlocal now
        if work.starts == 12:
            now += 61
        if work.starts < 14:
            raise LookupError
        work.over.set()

    def note(wait: float, *call: object) -> asyncio.TimerHandle:
        waits.append(wait)
        return call_later(0, *call)  # type: ignore[arg-type] # as it was called

    work.fail = fail
    with monkeypatch.context() as patched:
        running = background(work, first_wait=0.1)
        patched.setattr(loop, "call_later", note)
        patched.setattr(running, "_loop", loop)
        patched.setattr(loop, "time", lambda: now)
        await running._ended.wait()
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 0.1, 0.2]


def test_the_end_of_an_event_loop_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        work = Work()
        background(work)
        await until(lambda: work.starts == 1)

    asyncio.run(main())
    assert caplog.messages == []
