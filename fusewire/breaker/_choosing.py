"""Which settings a registry gives to a circuit: those of files, of code, or the library's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fusewire.breaker._patterns import Patterns
from fusewire.breaker._settings import BreakerSettings, check_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.breaker._layer import SettingsLayer

LIBRARY = BreakerSettings()
"""What a circuit has of which nothing else is said."""


Overrides: TypeAlias = "tuple[dict[str, BreakerSettings], Patterns]"
"""Settings by name or pattern, and the same names and patterns, compiled."""


class Basis(NamedTuple):
    """What the settings of one circuit follow from. To look a name up in it needs no lock.

    Attributes:
        layer: what comes before all that code says; None for nothing.
        overrides: by name or pattern.
        given: what `get` was given for the name; None for nothing.
        common: what counts for names of which nothing else is said.
    """

    layer: SettingsLayer | None
    overrides: Overrides
    given: BreakerSettings | None
    common: BreakerSettings | None

    def by_code(self, name: str) -> BreakerSettings | None:
        """Return what code says of the circuit called `name`, None if it says nothing."""
        overrides, patterns = self.overrides
        if name in overrides:
            return overrides[name]
        if self.given is not None:
            return self.given
        pattern = patterns.find(name)
        return self.common if pattern is None else overrides[pattern]

    def settings_of(self, name: str) -> BreakerSettings:
        """Return the settings of the circuit called `name`."""
        code = self.by_code(name)
        chosen = code if self.layer is None else self.layer.settings_for(name, code)
        return LIBRARY if chosen is None else chosen

    def is_still(self, other: Basis) -> bool:
        """Return whether nothing has been replaced since `other`."""
        return all(mine is theirs for mine, theirs in zip(self, other, strict=True))


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
        self._overrides: Overrides = ({}, Patterns(()))

    def store(self, settings: BreakerSettings | None, overrides: Overrides | None) -> None:
        """Store what is given; None leaves the former."""
        if settings is not None:
            self._common = settings
        if overrides is not None:
            self._overrides = overrides

    def basis(self, name: str, first: BreakerSettings | None = None) -> Basis:
        """Return what the settings of the circuit called `name` follow from now.

        Args:
            name: the circuit's name.
            first: what `get` is about to be given first, if nothing was given yet.
        """
        return Basis(self.layer, self._overrides, self.given.get(name, first), self._common)

    def of(self, name: str) -> BreakerSettings:
        """Return the settings of the circuit called `name`."""
        return self.basis(name).settings_of(name)


def checked(
    settings: BreakerSettings | None, overrides: Mapping[str, BreakerSettings] | None
) -> tuple[BreakerSettings | None, Overrides | None]:
    """Return what a registry is given, compiled.

    Raises:
        SettingsError: something is not valid.
    """
    if settings is not None:
        check_settings(settings)
    for name, override in (overrides or {}).items():
        check_settings(override, f"overrides[{name!r}]")
    return settings, None if overrides is None else (dict(overrides), Patterns(overrides))
