"""What exceptions and results say, by the lists and by classifiers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Outcome,
)
from fusewire.operation import without_fallbacks
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def breaker_with(clock: FakeClock, **settings: Any) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=BreakerSettings(**settings), clock=clock)


def throw(error: BaseException) -> None:
    raise error


def test_ignored_exceptions_are_ignored_though_expected(clock: FakeClock) -> None:
    breaker = breaker_with(
        clock, expected_exceptions=(OSError,), ignored_exceptions=(FileNotFoundError,)
    )
    assert breaker.classify(OSError()) is Outcome.FAILURE
    assert breaker.classify(FileNotFoundError()) is Outcome.IGNORED
    assert breaker.classify(ValueError()) is Outcome.IGNORED


def test_a_classifier_of_exceptions_is_asked_first(clock: FakeClock) -> None:
    def classify(error: BaseException) -> Outcome | None:
        if isinstance(error, KeyError):
            return Outcome.SUCCESS
        return Outcome.FAILURE if isinstance(error, FileNotFoundError) else None

    breaker = breaker_with(
        clock, ignored_exceptions=(FileNotFoundError,), classify_exception=classify
    )
    assert breaker.classify(KeyError()) is Outcome.SUCCESS
    assert breaker.classify(FileNotFoundError()) is Outcome.FAILURE
    assert breaker.classify(ValueError()) is Outcome.FAILURE
    assert breaker.classify(asyncio.CancelledError()) is Outcome.IGNORED
    with pytest.raises(KeyError):
        breaker.call(throw, KeyError())
    assert breaker.snapshot().counters.succeeded == 1


def test_an_error_that_counts_as_success_closes_a_half_open_circuit(clock: FakeClock) -> None:
    breaker = breaker_with(
        clock,
        failure_threshold=1,
        half_open_max_calls=1,
        classify_exception=lambda error: Outcome.SUCCESS if isinstance(error, KeyError) else None,
    )
    half_open_circuit(breaker, clock)
    with pytest.raises(KeyError):
        breaker.call(throw, KeyError())
    assert breaker.state is CircuitState.CLOSED


def test_a_fallback_does_not_answer_for_an_error_that_counts_as_success(clock: FakeClock) -> None:
    breaker = breaker_with(clock, classify_exception=lambda _: Outcome.SUCCESS)
    with pytest.raises(KeyError):
        breaker.call_with_fallback(throw, KeyError(), fallback=lambda _: "cached")


@pytest.mark.parametrize("answer", ["nonsense", 1, True, False])
def test_a_classifier_that_talks_nonsense_is_not_heard_and_the_log_says_so(
    clock: FakeClock, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = breaker_with(
        clock, classify_exception=lambda _: answer, classify_result=lambda _: answer
    )
    with caplog.at_level(logging.ERROR):
        assert breaker.classify(ValueError()) is Outcome.FAILURE
    assert f"TypeError: a classifier must return an Outcome, got {answer!r}" in caplog.text
    breaker.call(lambda: None)
    assert breaker.snapshot().counters.succeeded == 1


def test_a_classifier_that_returns_a_coroutine_is_not_heard_either(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def judge() -> Outcome:
        return Outcome.IGNORED

    returned = judge()
    breaker = breaker_with(clock, classify_exception=lambda _: returned)
    with caplog.at_level(logging.ERROR):
        assert breaker.classify(ValueError()) is Outcome.FAILURE
    assert "a classifier must return an Outcome, got <coroutine object" in caplog.text
    assert inspect.getcoroutinestate(returned) == inspect.CORO_CLOSED  # no warning follows


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_classifier_that_fails_is_logged_and_harms_no_call(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def classify(_: object) -> Outcome:
        raise error("broken classifier")

    breaker = breaker_with(clock, classify_exception=classify, classify_result=classify)
    with caplog.at_level(logging.ERROR):
        assert breaker.call(lambda: "answer") == "answer"
        with pytest.raises(ConnectionError):
            breaker.call(throw, ConnectionError())
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.failed) == (1, 1)
    assert len(caplog.records) == 1, "of errors alike, one a minute"
    assert "broken classifier" in caplog.text
    assert caplog.records[0].getMessage() == (
        f"the classifier {classify!r} failed on an object of str"
    )


@pytest.mark.parametrize("how", ["context", "cause", "cause of the context"])
def test_the_log_of_a_classifier_that_fails_has_no_text_of_the_call(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def classify(subject: Any) -> Outcome:
        if how == "context":
            raise RuntimeError("broken classifier")
        try:
            raise KeyError("first") from subject  # noqa: TRY301 - where it is raised is the point
        except KeyError as error:
            if how == "cause":
                raise
            raise RuntimeError("second") from error

    breaker = breaker_with(clock, classify_exception=classify, classify_result=lambda _: 1 / 0)
    with caplog.at_level(logging.ERROR):
        breaker.call(lambda: "card 4111 1111 1111 1111")
        with pytest.raises(ConnectionError):
            breaker.call(throw, ConnectionError("card 4111 1111 1111 1111"))
    assert len(caplog.records) == 2
    assert "Traceback" in caplog.text
    assert "4111 1111" not in caplog.text


def test_what_is_known_of_failing_classifiers_is_bounded(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusewire.breaker._classification._MOST_CLASSIFIERS", 2)
    monkeypatch.setattr("fusewire.breaker._classification._failures", known := {})
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            breaker = breaker_with(clock, classify_result=lambda _: 1 / 0)
            breaker.call(lambda: None)
            assert len(known) <= 2
    assert len(caplog.records) == 5


def by_status(status: int) -> Outcome:
    if status == 404:
        return Outcome.IGNORED
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS


async def status_async(status: int) -> int:
    await asyncio.sleep(0)
    return status


async def test_a_classifier_of_results_decides_on_what_functions_give(clock: FakeClock) -> None:
    breaker = breaker_with(clock, failure_threshold=99, classify_result=by_status)
    guarded, guarded_async = breaker(lambda status: status), breaker(status_async)
    for status in (200, 404, 500):
        assert guarded(status) == status
        assert await guarded_async(status) == status
        assert breaker.call(abs, status) == status
        assert await breaker.call(status_async, status) == status
        assert await breaker.call_async(status_async, status) == status
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.ignored, counters.failed) == (5, 5, 5)


async def test_a_fallback_answers_for_results_that_count_as_failures(clock: FakeClock) -> None:
    breaker = breaker_with(clock, failure_threshold=99, classify_result=by_status)

    async def later(_: int) -> str:
        return await asyncio.sleep(0, "later")

    assert breaker.call_with_fallback(abs, 500, fallback=lambda _: "cached") == "cached"
    assert breaker.call_with_fallback(abs, 200, fallback=lambda _: "cached") == 200
    assert await breaker.call_with_fallback(status_async, 500, fallback=later) == "later"
    assert await breaker.call_with_fallback(status_async, 404, fallback=later) == 404
    assert await breaker(status_async, fallback=lambda _: "cached")(500) == "cached"
    with without_fallbacks():
        assert breaker.call_with_fallback(abs, 500, fallback=lambda _: "cached") == 500
    assert breaker.snapshot().counters.failed == 4


def test_without_a_classifier_none_is_asked(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = breaker_with(clock)
    half_open_circuit(breaker, clock)
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        breaker.call(lambda: None)
    assert caplog.records == []


def test_a_group_says_what_the_errors_in_it_say(clock: FakeClock) -> None:
    def classify(error: BaseException) -> Outcome | None:
        return Outcome.SUCCESS if isinstance(error, KeyError) else None

    breaker = breaker_with(clock, expected_exceptions=(OSError,), classify_exception=classify)
    rejection = CircuitOpenError("search", "open", 1.0)
    for errors, outcome in (
        ([OSError()], Outcome.FAILURE),
        ([ValueError(), KeyError(), OSError()], Outcome.FAILURE),
        ([ValueError(), KeyError()], Outcome.SUCCESS),
        ([ValueError(), rejection], Outcome.IGNORED),
        ([ExceptionGroup("inner", [ValueError(), OSError()])], Outcome.FAILURE),
        ([asyncio.CancelledError()], Outcome.IGNORED),
    ):
        assert breaker.classify(BaseExceptionGroup("outer", errors)) is outcome


def test_what_is_ignored_is_ignored_in_a_group_too(clock: FakeClock) -> None:
    breaker = breaker_with(clock, ignored_exceptions=(ValueError,))
    assert breaker.classify(ExceptionGroup("all", [ValueError()])) is Outcome.IGNORED
    assert breaker.classify(ExceptionGroup("one", [ValueError(), KeyError()])) is Outcome.FAILURE
    of_groups = breaker_with(clock, ignored_exceptions=(ExceptionGroup,))
    assert of_groups.classify(ExceptionGroup("all", [KeyError()])) is Outcome.IGNORED


async def test_calls_in_a_task_group_count(clock: FakeClock) -> None:
    breaker = breaker_with(clock, failure_threshold=1, expected_exceptions=(ConnectionError,))

    async def fail() -> None:
        raise ConnectionError

    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(asyncio.Event().wait())

    with pytest.raises(ExceptionGroup):
        await breaker.call_async(both)
    assert breaker.state is CircuitState.OPEN
