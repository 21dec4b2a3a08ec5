"""What may come before the settings of code: a layer of settings that files make."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from fusewire.breaker._figures import CircuitMode

if TYPE_CHECKING:
    from fusewire.breaker._breaker import CircuitBreaker
    from fusewire.breaker._settings import BreakerSettings


class SetMode(NamedTuple):
    """A mode that a layer sets.

    Attributes:
        mode: the mode.
        by: who sets it, for the log, the event and the figures.
    """

    mode: CircuitMode
    by: str


class SettingsLayer(Protocol):
    """Settings that come before those of code.

    Its methods are called in any thread, at the same time.
    """

    def settings_for(self, name: str, code: BreakerSettings | None) -> BreakerSettings | None:
        """Return the settings of the circuit called `name`; None for the library's.

        Args:
            name: the circuit's name.
            code: what code says; None if it says nothing.
        """

    def mode_for(self, name: str) -> SetMode | None:
        """Return the mode of the circuit called `name`, None if that is nobody's business."""

    def report(
        self,
        name: str,
        old: BreakerSettings,
        new: BreakerSettings,
        former: SettingsLayer | None,
    ) -> None:
        """Log what changes for the circuit called `name`.

        Args:
            name: the circuit's name.
            old: what its settings were, or would have been.
            new: what they are by this layer.
            former: the layer that `old` is by, None if it is by code alone.
        """


def set_mode(breaker: CircuitBreaker, wanted: SetMode) -> None:
    """Set the mode of a circuit, unless it has that mode already."""
    if breaker.figures(durations=False).mode is wanted.mode:
        return
    change = {
        CircuitMode.AUTOMATIC: breaker.automatic,
        CircuitMode.FORCED_OPEN: breaker.force_open,
        CircuitMode.DISABLED: breaker.disable,
        CircuitMode.METRICS_ONLY: breaker.metrics_only,
    }[wanted.mode]
    change(by=wanted.by)
