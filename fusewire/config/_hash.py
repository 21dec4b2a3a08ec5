"""What tells replicas with other settings apart: a hash of what files and variables mean."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fusewire.config._showing import show_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.config._checking import Fields
    from fusewire.config._config import Config

_LENGTH = 12
"""Hexadecimal digits: 48 bits, so that a fleet's few settings never meet by chance."""

_WAYS = ("base", "preset")
"""Keys that say where other values come from."""


def hash_of(config: Config) -> str:
    """Return a hash of all settings, the same wherever they mean the same.

    Where a value is written does not count. A value that came from ``${…}`` may be secret, and a
    hash of few likely values can be guessed: in its place counts what is written there.
    """
    digest = hashlib.sha256()
    for row in _rows(config):
        digest.update("\0".join(row).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()[:_LENGTH]


def _rows(config: Config) -> Iterator[tuple[str, ...]]:
    defaults = [] if config.defaults is None else [config.defaults]
    for circuit in (*defaults, *config.circuits.values()):
        yield (circuit.name, *_texts(circuit.origins))
    for queue, consumer in config.consumers.items():
        yield ("consumer", queue, *_texts(consumer.origins))
    for queue, forwarder in config.forwarders.items():
        yield ("forwarder", queue, *_texts(forwarder.origins))
    yield ("ready_needs", *config.ready_needs)


def _texts(origins: Fields) -> Iterator[str]:
    for name, origin in sorted(origins.items()):
        if name not in _WAYS:
            yield f"{name}={show_origin(origin)}"
