"""A payments server for what the pages show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.payments import PaymentsProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    server = PaymentsProcess(tmp_path)
    server.start()
    yield server
    server.close()
