"""Guards with options that change how a call is followed, for tests that hold with each of them."""

from __future__ import annotations

import pytest

from fusewire.interceptors import FallbackDeclined


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


GUARDS = pytest.mark.parametrize(
    "options",
    [{}, {"fallbacks": {"*": _decline}}, {"streams": "first_message"}],
    ids=["plain", "declining", "first_message"],
)
