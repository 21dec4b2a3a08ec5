"""The clock that tests control."""

from __future__ import annotations

import pytest

from fusewire.testing import FakeClock


def test_it_goes_on_only_when_told() -> None:
    clock = FakeClock(5.0)
    assert clock() == clock() == 5.0
    clock.advance(2.5)
    assert clock() == 7.5
    clock.advance(0)
    assert clock() == 7.5


def test_it_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="negative"):
        FakeClock().advance(-1)
