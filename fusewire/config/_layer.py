"""What a registry takes from files: settings by name and pattern, which come before code's."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from fusewire._log_fields import fields
from fusewire.breaker import CircuitMode
from fusewire.breaker.internal import Patterns, SetMode
from fusewire.config._showing import show_origin, show_setting
from fusewire.config._spring_keys import canonical
from fusewire.config._spring_values import SpringClassifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.breaker import BreakerSettings
    from fusewire.breaker.internal import SettingsLayer
    from fusewire.config._resolving import CircuitConfig

logger = logging.getLogger("fusewire.config")

_MOST_REPORTED = 10_000
"""Names of circuits that are remembered, so that each is logged once."""


class FileLayer:
    """Settings from files, as a layer of a registry.

    Args:
        defaults: what is said of circuits that neither files nor code name; None for nothing.
        circuits: what is said of each circuit or pattern.
    """

    def __init__(
        self, defaults: CircuitConfig | None, circuits: Mapping[str, CircuitConfig]
    ) -> None:
        self._defaults = defaults
        self._circuits = circuits
        self._patterns = Patterns(tuple(circuits))
        self._latest: tuple[str, CircuitConfig | None] = "", None
        self._reported: set[str] = set()
        self._alike = {canonical(name): name for name in circuits}

    def circuit_for(self, name: str) -> CircuitConfig | None:
        """Return what is said of the circuit called `name`, by its name or by a pattern."""
        asked, circuit = self._latest  # when a circuit is made, it is asked for several times
        if asked != name:
            pattern = self._patterns.find(name)
            circuit = None if pattern is None else self._circuits[pattern]
            self._latest = name, circuit
        return circuit

    def said_of(self, name: str) -> CircuitConfig | None:
        """Return what the settings of the circuit called `name` are by, if by files."""
        return self.circuit_for(name) or self._defaults

    def settings_for(self, name: str, code: BreakerSettings | None) -> BreakerSettings | None:
        """Return the settings: the files' if they name the circuit, else code's, else defaults.

        Functions are always code's, and so are exception classes that the files do not name.
        """
        circuit = self.circuit_for(name)
        if circuit is None:
            by_defaults = None if self._defaults is None else self._defaults.settings
            return by_defaults if code is None else code
        if code is None:
            return circuit.settings
        kept = {
            field: getattr(code, field)
            for field in _CODES
            if (origin := circuit.origins.get(field)) is None or origin.place is None
        }
        judge = circuit.settings.classify_exception
        if isinstance(judge, SpringClassifier):
            function = code.classify_exception
            kept["classify_exception"] = dataclasses.replace(judge, first=function)
        if all(getattr(circuit.settings, field) == value for field, value in kept.items()):
            return circuit.settings
        return dataclasses.replace(circuit.settings, **kept)

    def mode_for(self, name: str) -> SetMode | None:
        """Return the mode that files say."""
        circuit = self.circuit_for(name)
        if circuit is None or circuit.mode is None:
            return None
        return SetMode(CircuitMode(circuit.mode.value), str(circuit.mode))

    def report(
        self,
        name: str,
        old: BreakerSettings,
        new: BreakerSettings,
        former: SettingsLayer | None,
    ) -> None:
        """Log once for each circuit what changes: field, old value, new value, and its place.

        A name that files write in another way is a warning: they say nothing of that circuit.
        """
        alike = self.written_otherwise(name)
        if alike and not (isinstance(former, FileLayer) and former.written_otherwise(name)):
            logger.warning(
                "circuit %r has no settings from files: they write its name %r (%s)",
                name,
                alike,
                self._circuits[alike].place,
            )
        if old == new or name in self._reported or not logger.isEnabledFor(logging.INFO):
            return
        if len(self._reported) >= _MOST_REPORTED:
            self._reported.clear()
        self._reported.add(name)
        circuit = self.said_of(name)
        before = former.said_of(name) if isinstance(former, FileLayer) else None
        changes = [
            f"{field}: {_shown(before, field, getattr(old, field))}"
            f" → {_shown(circuit, field, getattr(new, field))}{_place(circuit, field)}"
            for field in (one.name for one in dataclasses.fields(new))
            if field not in _FUNCTIONS and getattr(old, field) != getattr(new, field)
        ]
        logger.info(
            "circuit %r is configured: %s",
            name,
            "; ".join(changes),
            extra=fields("circuit.configured", circuit=name, count=len(changes)),
        )

    def written_otherwise(self, name: str) -> str:
        """Return a name in the files that differs in case, hyphens and underscores alone.

        Empty if there is none, or if they name this circuit as well.
        """
        alike = self._alike.get(canonical(name), name)
        return "" if alike == name or self.circuit_for(name) is not None else alike


_FUNCTIONS = ("classify_exception", "classify_result")
_CODES = (*_FUNCTIONS, "expected_exceptions", "ignored_exceptions")
"""What is code's unless a file says it."""


def _shown(circuit: CircuitConfig | None, field: str, value: object) -> str:
    """Return how the log shows a value: not at all if it came from a variable."""
    origin = None if circuit is None else circuit.origins.get(field)
    return show_setting(value) if origin is None else show_origin(origin._replace(value=value))


def _place(circuit: CircuitConfig | None, field: str) -> str:
    origin = None if circuit is None else circuit.origins.get(field)
    return "" if origin is None else f" ({origin})"
