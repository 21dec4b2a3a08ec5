"""Puts circuits into a state by name, for the duration of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from fusewire.breaker import BreakerRegistry, CircuitBreaker, Snapshot


class Circuits:
    """Circuits of a registry in the states that a test needs; the block's end restores them.

    Args:
        registry: where the code under test gets its breakers from.
    """

    def __init__(self, registry: BreakerRegistry) -> None:
        self._registry = registry
        self._before: dict[str, Snapshot | None] = {}

    def force_open(self, name: str) -> CircuitBreaker:
        """Make the circuit `name` reject every call.

        A name that nothing has asked for yet is no error, as the code under test may do so later.
        """
        breaker = self._get(name)
        breaker.force_open()
        return breaker

    def disable(self, name: str) -> CircuitBreaker:
        """Make the circuit `name` admit every call, whatever fails."""
        breaker = self._get(name)
        breaker.disable()
        return breaker

    def reset(self, name: str) -> CircuitBreaker:
        """Reset the circuit `name`: closed, with empty counts."""
        breaker = self._get(name)
        breaker.reset()
        return breaker

    def _get(self, name: str) -> CircuitBreaker:
        known = self._registry.find(name)
        if name not in self._before:
            self._before[name] = None if known is None else known.snapshot()
        return self._registry.get(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the state of each circuit; one that the test created is reset."""
        for name, snapshot in self._before.items():
            if snapshot is not None:
                self._registry.get(name).restore(snapshot)
            elif (made := self._registry.find(name)) is not None:
                made.reset()
        self._before.clear()
