"""The RabbitMQ of a benchmark: the one that is named, or a private node for as long as it takes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.rabbitmq_choice import start_private_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rabbitmq_node import PrivateNode


@contextmanager
def node(address: str | None) -> Iterator[str]:
    """Return the URL of the RabbitMQ for the block."""
    if address is not None:
        yield address
        return
    with private_node() as private:
        yield private.url


@contextmanager
def private_node() -> Iterator[PrivateNode]:
    """Start a private node for the block."""
    private = start_private_node()
    try:
        print(f"RabbitMQ {private.version}, a private node", flush=True)
        yield private
    finally:
        private.close()
