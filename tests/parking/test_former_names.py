"""Names that were changed still work, and say what they are called now."""

from __future__ import annotations

import pytest

import fusewire.parking
from fusewire.parking import MessageEvent, MessageOutcome


def test_a_class_is_still_found_by_its_former_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"is now fusewire\.parking\.MessageOutcome"):
        former = fusewire.parking.Happening  # type: ignore[attr-defined] # that is the test
    assert former is MessageOutcome


def test_an_event_still_says_by_its_former_name_what_happened() -> None:
    event = MessageEvent(MessageOutcome.PARKED, "a", "q")
    with pytest.warns(DeprecationWarning, match=r"is now MessageEvent\.outcome"):
        assert event.happening is MessageOutcome.PARKED


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(AttributeError, match=r"'fusewire\.parking' has no attribute 'Happened'"):
        fusewire.parking.Happened  # type: ignore[attr-defined]  # noqa: B018 - that is the test
