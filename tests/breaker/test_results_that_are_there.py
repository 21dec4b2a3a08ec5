"""Results that are there when they are returned: their calls are over then."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitBreaker
from fusewire.breaker import _results as results_module
from fusewire.breaker._results import MOST_PLAIN, comes_later
from tests.support.ways_through import totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


def test_most_results_are_there() -> None:
    for result in (None, 1, "text", b"", [], {}, {1}, object(), iter(()), range(3), int, len):
        assert not comes_later(result)
        assert not comes_later(result)


def test_not_many_types_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "PLAIN", set())
    for number in range(2 * MOST_PLAIN):
        assert not comes_later(type(f"Kind{number}", (), {})())
        assert len(results_module.PLAIN) <= MOST_PLAIN
    assert len(results_module.PLAIN) > 1


def test_an_object_of_a_type_that_is_seen_for_the_first_time_is_the_result(
    breaker: CircuitBreaker,
) -> None:
    for offers_loans in (True, False):
        reply: object = type("Reply", (), {})()
        if not offers_loans:
            breaker._unproven = 0
            breaker._refresh()
        assert breaker.call(lambda given=reply: given) is reply
    assert totals(breaker) == (2, 0, 0, 0)


@asynccontextmanager
async def session() -> AsyncIterator[str]:
    yield "session"


async def test_a_context_manager_is_a_result_that_is_there(breaker: CircuitBreaker) -> None:
    async with breaker.call(session) as given:
        assert given == "session"
    assert totals(breaker) == (1, 0, 0, 0)
