"""Fixtures for pytest. Add this module to a project's ``pytest_plugins`` to use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import default_registry
from fusewire.testing._circuits import Circuits
from fusewire.testing._clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def circuits() -> Iterator[Circuits]:
    """Circuits of the process's own registry, to force open by name; restored after the test."""
    with Circuits(default_registry()) as circuits:
        yield circuits


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that advances only when the test says so."""
    return FakeClock()
