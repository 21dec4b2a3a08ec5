"""Bringing circuits into a state by name, for the time of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from fusewire.breaker import BreakerRegistry, CircuitBreaker, Snapshot


class Circuits:
    """Circuits of a registry, in the states that a test wants; put back when the block ends.

    Args:
        registry: where the code under test gets its breakers from.
    """

    def __init__(self, registry: BreakerRegistry) -> None:
        self._registry = registry
        self._before: dict[str, Snapshot | None] = {}

    def force_open(self, name: str) -> CircuitBreaker:
        """Let the circuit `name` reject every call."""
        breaker = self._get(name)
        breaker.force_open()
        return breaker

    def disable(self, name: str) -> CircuitBreaker:
        """Let the circuit `name` admit every call, whatever fails."""
        breaker = self._get(name)
        breaker.disable()
        return breaker

    def reset(self, name: str) -> CircuitBreaker:
        """Let the circuit `name` begin anew, closed."""
        breaker = self._get(name)
        breaker.reset()
        return breaker

    def _get(self, name: str) -> CircuitBreaker:
        known = name in self._registry
        breaker = self._registry.get(name)
        if name not in self._before:
            self._before[name] = breaker.snapshot() if known else None
        return breaker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put each circuit back to where it was; one that was made by the test begins anew."""
        for name, snapshot in self._before.items():
            breaker = self._registry.get(name)
            if snapshot is None:
                breaker.reset()
            else:
                breaker.restore(snapshot)
        self._before.clear()
