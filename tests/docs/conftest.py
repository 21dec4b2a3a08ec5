"""The payments server of the pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.own_payments import offer_own_stubs
from tests.support.payments import PaymentsProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).with_name("own_payments.py")


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    """Provide a payments server, running, which answers to the pages' and to the demo's names."""
    offer_own_stubs()
    server = PaymentsProcess(tmp_path, program=(str(SERVER),))
    server.start()
    yield server
    server.close()
