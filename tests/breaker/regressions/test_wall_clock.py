"""Time is monotonic (circuitbreaker 31 and aiobreaker follow the wall clock)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitBreaker
from tests.support.circuits import open_circuit

if TYPE_CHECKING:
    import pytest


def test_setting_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = CircuitBreaker("payments", recovery_timeout=3600)
    open_circuit(breaker)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert not breaker.can_execute()
    assert 3500 < breaker.look().retry_after <= 3600
