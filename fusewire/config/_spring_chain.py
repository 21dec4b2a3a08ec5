"""What an instance of a Spring Boot file inherits: the values along its chain of configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire.config._checking import Origin
from fusewire.config._spring_keys import canonical

if TYPE_CHECKING:
    from fusewire.config._problems import Place

THEIRS = "resilience4j's default"
"""Where a value comes from that an instance does not say."""


class Value(NamedTuple):
    """A value of a key, and where it is written."""

    value: Any
    place: Place


class Getter:
    """Finds the value of a key along a chain, or resilience4j's default."""

    def __init__(self, chain: list[tuple[str, dict[str, Value]]]) -> None:
        self._chain = chain

    def __call__(self, key: str, default: object) -> Origin:
        """Return the value of a key with where it comes from."""
        for name, keys in self._chain:
            if (found := keys.get(canonical(key))) is not None:
                return Origin(found.value, found.place, f"configs.{name}" if name else "")
        return Origin(default, None, THEIRS)


def first_of(chain: list[tuple[str, dict[str, Value]]], key: str) -> Value | None:
    """Return the nearest value of a key along a chain, None for none."""
    return next((keys[canonical(key)] for _, keys in chain if canonical(key) in keys), None)
