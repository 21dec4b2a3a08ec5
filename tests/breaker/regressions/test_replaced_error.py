"""The call that opens a circuit raises its own error (pybreaker 60 replaced it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitState

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker


def test_the_call_that_opens_the_circuit_raises_what_the_function_raised(
    breaker: CircuitBreaker,
) -> None:
    error = ConnectionError("down")

    def fail() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            breaker.call(fail)
        assert caught.value is error
    assert breaker.state is CircuitState.OPEN
