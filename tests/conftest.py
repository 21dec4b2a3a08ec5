"""What every test gets."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: grpc.aio and aio-pika know no other loop."""
    return "asyncio"
