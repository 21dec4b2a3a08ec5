"""What files mean for each circuit and consumer, when all of them are put together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.breaker import PRESETS, BreakerSettings
from fusewire.breaker.internal import (
    LIKE_MILLISECONDS,
    MAX_LIKELY_SECONDS,
    conflicts,
    looks_like_milliseconds,
)
from fusewire.config._checking import Fields, Layer, Origin
from fusewire.config._problems import Place, Problem, Severity, shown_remedy
from fusewire.config._showing import show_origin
from fusewire.errors import SettingsError
from fusewire.parking import ReplayPolicy, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOWHERE = Place("the files")
_LIBRARY = BreakerSettings()
_SETTINGS = tuple(field.name for field in dataclasses.fields(BreakerSettings))
_JUDGE = "classify_exception"
_FUNCTIONS = (_JUDGE, "classify_result")
_LIBRARY_FIELDS: Fields = {
    name: Origin(getattr(_LIBRARY, name), None, "the library")
    for name in _SETTINGS
    if name not in _FUNCTIONS
}
_OF_PRESETS = tuple(
    name
    for name in _SETTINGS
    if any(getattr(preset, name) != getattr(_LIBRARY, name) for preset in PRESETS.values())
)
"""The settings that presets are about. The others of a preset are the library's."""


@dataclass(frozen=True, slots=True)
class CircuitConfig:
    """What files say of one circuit, or of all whose names match a pattern.

    Attributes:
        name: the circuit's name, or the pattern.
        settings: all settings; those that files do not say are the library's.
        origins: each setting with its value and where that comes from.
        mode: the mode, None if no file says one.
        place: where the circuit is written.
    """

    name: str
    settings: BreakerSettings
    origins: Fields
    mode: Origin | None
    place: Place


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """The policies of one consumer.

    Attributes:
        retry: when a message that failed is tried again.
        replay: how parked messages are replayed.
        origins: by ``retry.`` or ``replay.`` and the key, each value and where it comes from.
    """

    retry: RetryPolicy
    replay: ReplayPolicy
    origins: Fields = dataclasses.field(default_factory=dict)


class Resolver:
    """Resolves what all documents say together.

    Attributes:
        problems: what is wrong.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.problems: list[Problem] = []
        # Many circuits have the same settings.
        self._made: dict[tuple[object, ...], BreakerSettings] = {}
        self._judged: set[tuple[Place | None, str]] = set()

    def defaults(self) -> CircuitConfig | None:
        """Return what is said of circuits of which nothing else is said; None for nothing."""
        if not self._layer.defaults:
            return None
        origins = _LIBRARY_FIELDS | _with_preset(self._layer.defaults)
        name = "breakers.defaults"
        place = next((one.place for one in origins.values() if one.place), _NOWHERE)
        settings = self._settings(name, place, origins, {("defaults", "")})
        return CircuitConfig(name, settings or _LIBRARY, origins, None, place)

    def circuits(self) -> Iterator[CircuitConfig]:
        """Yield what is said of each circuit and pattern."""
        self._check_bases()
        filled = _LIBRARY_FIELDS | _with_preset(self._layer.defaults)
        for name, own in self._layer.circuits.items():
            chain = [("circuits", name), *(("bases", base) for base in self._bases_of(own))]
            links = [own, *(self._layer.bases[base] for _, base in chain[1:])]
            given: Fields = {}
            for link in reversed(links):
                given |= _with_preset(link)
            origins = filled | given
            place = self._layer.names_at.get(("circuits", name), _NOWHERE)
            subject = f"breakers.circuits[{name!r}]"
            settings = self._settings(subject, place, origins, {*chain, ("defaults", "")})
            if settings is not None:
                yield CircuitConfig(name, settings, origins, given.get("mode"), place)

    def consumers(self) -> Iterator[tuple[str, ConsumerConfig]]:
        """Yield the policies of each consumer."""
        for queue, retry in self._layer.retry.items():
            replay = self._layer.replay.get(queue, {})
            origins = {f"retry.{key}": one for key, one in retry.items()}
            origins |= {f"replay.{key}": one for key, one in replay.items()}
            yield (
                queue,
                ConsumerConfig(
                    retry=RetryPolicy(**{key: one.value for key, one in retry.items()}),
                    replay=ReplayPolicy(**{key: one.value for key, one in replay.items()}),
                    origins=origins,
                ),
            )

    def _bases_of(self, fields: Fields) -> list[str]:
        """Return the names of the bases of a circuit, the nearest first, without cycles."""
        names: list[str] = []
        while (named := fields.get("base")) is not None:
            if named.value in names or named.value not in self._layer.bases:
                break
            names.append(named.value)
            fields = self._layer.bases[named.value]
        return names

    def _check_bases(self) -> None:
        """Find bases that do not exist, and those that lead back to themselves."""
        bases = self._layer.bases
        for section in ("bases", "circuits"):
            for name, fields in getattr(self._layer, section).items():
                named = fields.get("base")
                if named is None:
                    continue
                subject = f"breakers.{section}[{name!r}].base"
                if named.value not in bases:
                    near = nearest(named.value, bases)
                    known = f"one of {', '.join(bases)}" if bases else "a name in breakers.bases"
                    if named.value in PRESETS:
                        remedy = f"write preset: {named.value}"
                    else:
                        remedy = f"did you mean {near}?" if near else "add it to breakers.bases"
                    self._add(named, subject, known, shown_remedy(remedy, named.place or _NOWHERE))
                elif section == "bases" and name in self._bases_of(fields):
                    way = " → ".join([name, *self._bases_of(fields)])
                    self._add(
                        named,
                        subject,
                        "a base that does not lead back to this one",
                        "remove one of the keys called base",
                        value=f"the cycle {way}",
                    )

    def _settings(
        self, subject: str, place: Place, origins: Fields, parts: set[tuple[str, str]]
    ) -> BreakerSettings | None:
        """Return the settings if they fit together. What has problems already is not judged."""
        broken = parts & self._layer.broken
        if broken:
            return None
        self._warn_of_milliseconds(subject, origins)
        values = {name: origins[name].value for name in _LIBRARY_FIELDS}
        if _JUDGE in origins:  # as Spring Boot files have
            values[_JUDGE] = origins[_JUDGE].value
        key = tuple(values.values())
        known = self._made.get(key)
        if known is not None:
            return known
        try:
            made = self._made[key] = BreakerSettings(**values)
        except SettingsError:  # it names the first conflict alone
            self._add_conflicts(subject, place, origins, SimpleNamespace(**values))
            return None
        return made

    def _add_conflicts(
        self, subject: str, place: Place, origins: Fields, settings: SimpleNamespace
    ) -> None:
        """Add a problem for each setting that does not fit the others."""
        hidden = any(one.place and one.place.placeholder for one in origins.values())
        for name, accepted in conflicts(settings):
            # The sentence may hold the value of another setting.
            shown = _as_files_write(_without_values(accepted) if hidden else accepted)
            self._judge(subject, name, shown, origins, place)

    def _warn_of_milliseconds(self, subject: str, origins: Fields) -> None:
        """Warn of durations that look like milliseconds."""
        for name in LIKE_MILLISECONDS:
            origin = origins[name]
            if origin.value is None or origin.value <= MAX_LIKELY_SECONDS:
                continue
            looks_like_milliseconds(name, origin.value)  # not a second time, with the value
            if origin.place is not None:
                self._add(
                    origin,
                    f"{subject}.{name}",
                    "a duration, and rarely more than an hour",
                    "write ms behind the number if milliseconds were meant",
                    severity=Severity.WARNING,
                )

    def _judge(self, subject: str, name: str, accepted: str, origins: Fields, place: Place) -> None:
        origin = origins[name]
        if origin.place is None:  # what is at fault is what the circuit does not say
            origin = Origin(origin.value, place)
        self._add(origin, f"{subject}.{name}", accepted, _REMEDIES.get(name, "correct one of them"))

    def _add(
        self,
        origin: Origin,
        subject: str,
        accepted: str,
        remedy: str,
        *,
        value: str = "",
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Add a problem, once for each place: a base's is found by all that stand on it."""
        place = origin.place or _NOWHERE
        setting = subject.rpartition(".")[2]
        if (place, setting) not in self._judged:
            self._judged.add((place, setting))
            shown = value or show_origin(origin)
            self.problems.append(Problem(place, subject, accepted, shown, remedy, severity))


_REMEDIES = {
    "minimum_calls": "lower it, or raise window_calls",
    "window_seconds": "remove one of window_calls and window_seconds; null removes a base's",
    "failure_threshold": "give it a number, or set failure_rate_threshold and window_calls",
    "failure_rate_threshold": "add window_calls: 100, for example",
    "slow_call_rate_threshold": "add window_calls: 100, for example",
    "slow_call_duration": "add slow_call_duration",
    "recovery_timeout_max": "raise it, or lower recovery_timeout",
    "open_on_hanging": "set slow_call_rate_threshold, or write false",
    "probe_lease": "raise it, or lower slow_call_duration",
}


def _with_preset(fields: Fields) -> Fields:
    """Return the fields of one mapping on top of those of its preset."""
    named = fields.get("preset")
    if named is None:
        return dict(fields)
    preset = PRESETS[named.value]
    started = {
        name: Origin(getattr(preset, name), named.place, f"preset {named.value}")
        for name in _OF_PRESETS
    }
    return started | fields


def _as_files_write(accepted: str) -> str:
    """Return what is accepted in the words of files, not of Python."""
    return accepted.replace("None", "null").replace("False", "false")


def _without_values(accepted: str) -> str:
    """Return what is accepted without the values of other settings, which stand in brackets."""
    before, bracket, after = accepted.partition(" (")
    return before + after.partition(")")[2] if bracket else accepted
