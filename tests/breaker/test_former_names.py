"""Names that were changed still work, and say what they are called now."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

import fusewire.breaker
from fusewire.breaker import Admission, BreakerSettings, Bucket, CircuitBreaker, Outcome
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@pytest.mark.parametrize(("former", "renamed"), [("Look", Admission), ("Slice", Bucket)])
def test_a_class_is_still_found_by_its_former_name(former: str, renamed: type) -> None:
    with pytest.warns(DeprecationWarning, match=f"{former} is now .*{renamed.__name__}"):
        assert getattr(fusewire.breaker, former) is renamed


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(AttributeError, match=r"'fusewire\.breaker' has no attribute 'Looks'"):
        fusewire.breaker.Looks  # type: ignore[attr-defined]  # noqa: B018 - that is the test


def test_chance_is_rng() -> None:
    with pytest.warns(
        DeprecationWarning,
        match=r"^CircuitBreaker\(chance=\.\.\.\) is now CircuitBreaker\(rng=\.\.\.\)$",
    ):
        breaker = CircuitBreaker("payments", chance=lambda: 0.25)
    assert breaker._rng() == 0.25


def test_chance_beside_rng_is_refused() -> None:
    with pytest.raises(SettingsError) as refused:
        CircuitBreaker("payments", rng=lambda: 0.5, chance=random.random)
    assert str(refused.value) == (
        "rng and chance of circuit 'payments' are the same setting: leave out chance"
    )


def test_judge_is_classify(clock: FakeClock) -> None:
    settings = BreakerSettings(max_wait=2.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    renamed = r"^CircuitBreaker\.judge\(\) is now CircuitBreaker\.classify\(\)$"
    with pytest.warns(DeprecationWarning, match=renamed):
        assert breaker.judge(asyncio.CancelledError()) is Outcome.IGNORED
    with pytest.warns(DeprecationWarning, match=renamed):
        assert breaker.judge(asyncio.CancelledError(), clock.now - 2.0) is Outcome.FAILURE


def test_the_callers_line_is_named(clock: FakeClock) -> None:
    with pytest.warns(DeprecationWarning, match="chance") as of_chance:
        breaker = CircuitBreaker("payments", chance=lambda: 0.25, clock=clock)
    with pytest.warns(DeprecationWarning, match="judge") as of_judge:
        breaker.judge(asyncio.CancelledError())
    assert [warning.filename for warning in (*of_chance, *of_judge)] == [__file__, __file__]
