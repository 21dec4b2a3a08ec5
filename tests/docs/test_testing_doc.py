"""The tests that docs/testing.md shows pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.examples import run_examples

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize(
    "name", ["test_orders_wait_for_payments", "test_an_order_is_tried_again_after_an_hour"]
)
async def test_a_test_of_the_page_passes(name: str) -> None:
    page: dict[str, Any] = run_examples(PAGE, {"__name__": "page"})
    shown: Callable[[], Awaitable[None]] = page[name]
    await shown()
