"""Which settings a registry gives to a circuit: those of files, of code, or the library's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker._patterns import Patterns
from fusewire.breaker._settings import BreakerSettings, check_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.breaker._layer import SettingsLayer

LIBRARY = BreakerSettings()
"""What a circuit has of which nothing else is said."""


class ChosenSettings:
    """The settings that a registry was given, and what they mean for each name.

    Attributes:
        given: the settings that `get` was given for a name, or the breaker that was added came
            with. A later `configure` respects them.
        layer: what comes before all that code says; None for nothing.
    """

    def __init__(self) -> None:
        self.given: dict[str, BreakerSettings] = {}
        self.layer: SettingsLayer | None = None
        self._common: BreakerSettings | None = None
        # One value, because another thread may look for a name while they are replaced.
        self._overrides: tuple[dict[str, BreakerSettings], Patterns] = ({}, Patterns(()))

    def store(
        self, settings: BreakerSettings | None, overrides: Mapping[str, BreakerSettings] | None
    ) -> None:
        """Store what is given, if all of it is valid.

        Raises:
            SettingsError: something is not.
        """
        if settings is not None:
            check_settings(settings)
        for name, override in (overrides or {}).items():
            check_settings(override, f"overrides[{name!r}]")
        if settings is not None:
            self._common = settings
        if overrides is not None:
            self._overrides = (dict(overrides), Patterns(overrides))

    def of(self, name: str) -> BreakerSettings:
        """Return the settings of the circuit called `name`."""
        code = self.by_code(name)
        layer = self.layer
        chosen = code if layer is None else layer.settings_for(name, code)
        return LIBRARY if chosen is None else chosen

    def by_code(self, name: str) -> BreakerSettings | None:
        """Return what code says of the circuit called `name`, None if it says nothing."""
        overrides, patterns = self._overrides
        if name in overrides:
            return overrides[name]
        if (given := self.given.get(name)) is not None:
            return given
        pattern = patterns.find(name)
        return self._common if pattern is None else overrides[pattern]
