"""What is known of an operation's calls: how they ended, which were refused, and until when."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitBreaker, CircuitOpenError
from fusewire.operation import (
    CallNote,
    Operation,
    current_operation,
    fallbacks_allowed,
    operation,
    without_fallbacks,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def fail() -> None:
    raise ConnectionError


async def fail_async() -> None:
    raise ConnectionError


def test_each_failed_call_is_noted_in_order(breaker: CircuitBreaker) -> None:
    other = CircuitBreaker("search")
    with operation("op-1") as work:
        breaker.acquire().failure()
        other.acquire().failure(retry_after=2.5)
        with pytest.raises(ConnectionError):
            breaker.call(fail)
    assert work.notes == (
        CallNote("payments", "failure", None, None, None),
        CallNote("search", "failure", None, 2.5, "refused"),
        CallNote("payments", "failure", None, None, None),
    )
    assert work.failed == ["payments", "search"]


async def test_a_failed_coroutine_is_noted(breaker: CircuitBreaker) -> None:
    with operation("op-1") as work, pytest.raises(ConnectionError):
        await breaker.call_async(fail_async)
    assert work.notes == (CallNote("payments", "failure"),)


def test_successes_are_not_noted(breaker: CircuitBreaker) -> None:
    with operation("op-1") as work:
        breaker.acquire().success()
        breaker.call(lambda: None)
    assert work.notes == ()


def test_the_last_64_durations_are_kept() -> None:
    work = Operation("op-1")
    for number in range(100):
        work.note_duration("payments", "", number)
    assert [call.seconds for call in work.timed] == list(range(36, 100))


def test_the_last_64_notes_are_kept() -> None:
    work = Operation("op-1")
    for number in range(100):
        work.note(CallNote(f"b{number}", "ignored"))
    assert [note.breaker for note in work.notes] == [f"b{number}" for number in range(36, 100)]
    assert work.failed == []


def by_acquire(breaker: CircuitBreaker) -> None:
    breaker.acquire()


def by_call(breaker: CircuitBreaker) -> None:
    breaker.call(fail)


def by_generator(breaker: CircuitBreaker) -> None:
    def items() -> object:
        yield 1

    list(breaker(items)())  # type: ignore[call-overload]


def by_await(breaker: CircuitBreaker) -> None:
    asyncio.run(breaker.call_async(fail_async))


@pytest.mark.parametrize("way", [by_acquire, by_call, by_generator, by_await])
@pytest.mark.parametrize("how", ["force_open", "open"])
def test_a_refused_call_is_noted_once(
    breaker: CircuitBreaker, way: Callable[[CircuitBreaker], None], how: str
) -> None:
    if how == "force_open":
        breaker.force_open()
    else:
        for _ in range(2):
            breaker.acquire().failure()
    with operation("op-1") as work:
        for _ in range(2):
            with pytest.raises(CircuitOpenError):
                way(breaker)
    assert (work.rejected, work.failed, work.notes) == (["payments"], [], ())


def test_a_refusal_that_a_fallback_answered_is_none_to_the_handler(
    breaker: CircuitBreaker,
) -> None:
    breaker.force_open()
    with operation("op-1") as work:
        breaker.call_with_fallback(fail, fallback=lambda: "kept")
        assert work.rejected == []
        with without_fallbacks(), pytest.raises(CircuitOpenError):
            breaker.call_with_fallback(fail, fallback=lambda: "kept")
        assert work.rejected == ["payments"]


async def test_a_refusal_that_a_coroutine_answered_is_none_to_the_handler(
    breaker: CircuitBreaker,
) -> None:
    async def kept() -> str:
        return "kept"

    breaker.force_open()
    with operation("op-1") as work:
        assert await breaker(fail_async, fallback=kept)() == "kept"
    assert work.rejected == []


def test_a_look_is_no_refusal(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    with operation("op-1") as work:
        assert not breaker.look().admitted
    assert work.rejected == []


def test_leaving_the_block_ends_the_operation() -> None:
    with operation("op-1") as work:
        assert not work.ended
        assert current_operation() is work
    assert work.ended
    assert current_operation() is None


def test_an_inner_operation_ends_alone() -> None:
    with operation("op-1") as outer:
        with operation("op-2") as inner:
            assert current_operation() is inner
        assert (outer.ended, inner.ended) == (False, True)
        assert current_operation() is outer


async def test_a_task_that_outlives_the_block_works_on_nothing() -> None:
    left = asyncio.Event()

    async def outlive() -> tuple[Operation | None, bool]:
        await left.wait()
        return current_operation(), fallbacks_allowed()

    with operation("op-1"), without_fallbacks():
        task = asyncio.create_task(outlive())
        await asyncio.sleep(0)
    left.set()
    assert await task == (None, True)


def test_a_thread_that_outlives_the_block_works_on_nothing() -> None:
    left = threading.Event()
    seen: list[tuple[Operation | None, bool]] = []

    def outlive() -> None:
        left.wait(10)
        seen.append((current_operation(), fallbacks_allowed()))

    with operation("op-1"), without_fallbacks():
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(outlive,))
        thread.start()
    left.set()
    thread.join(10)
    assert seen == [(None, True)]


async def test_suppression_outside_of_an_operation_goes_with_the_context() -> None:
    left = asyncio.Event()

    async def outlive() -> bool:
        await left.wait()
        return fallbacks_allowed()

    with without_fallbacks():
        task = asyncio.create_task(outlive())
        await asyncio.sleep(0)
    left.set()
    assert not await task
    assert fallbacks_allowed()


def test_failures_after_the_end_change_nothing(breaker: CircuitBreaker) -> None:
    with operation("op-1") as work:
        context = contextvars.copy_context()
    context.run(breaker.acquire().failure)
    with contextlib.suppress(CircuitOpenError):
        breaker.force_open()
        context.run(breaker.acquire)
    assert (work.failed, work.rejected, work.notes) == ([], [], ())
