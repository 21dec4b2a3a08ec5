"""Reads the circuit breakers of a Spring Boot file into our own form.

Keys inherit as in resilience4j: from ``baseConfig`` and its bases, or else from the entry of
``configs`` that has the instance's name, or else from ``configs.default``; then come resilience4j's
own defaults, and not ours. What Spring ignores silently is a warning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._checking import Fields, Layer, Origin
from fusewire.config._problems import Place, Problem, Severity, shown_remedy, shown_value
from fusewire.config._spring_chain import THEIRS, Getter, Value, first_of
from fusewire.config._spring_environment import spring_variables
from fusewire.config._spring_keys import KEYS, MISTAKEN, NOTED_SECTIONS, canonical
from fusewire.config._spring_paths import GROUPS, leaves
from fusewire.config._spring_sections import BELOW, SECTION, other_sections, without_keys
from fusewire.config._spring_values import JAVA_EXCEPTIONS, SpringClassifier, read_exception
from fusewire.config._tree import NO_MARK, Row, Table
from fusewire.config._values import Misread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.config._spring_keys import Key
    from fusewire.config._tree import Document

DEFAULT = "default"
_MANY_MILLISECONDS = 1000
_SPECIAL = re.compile(r"[^\w-]")
"""What Spring drops from a name that is not in brackets."""


@dataclass(slots=True)
class Spring:
    """What Spring Boot files say of circuit breakers; later files count more.

    Attributes:
        java_exceptions: what further Java classes are in Python, by name.
        instances: the keys of each instance.
        configs: the keys of each shared configuration.
        problems: what is wrong, and what should be known.
    """

    java_exceptions: Mapping[str, str]
    instances: dict[str, dict[str, Value]] = field(default_factory=dict)
    configs: dict[str, dict[str, Value]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    places: dict[str, Place] = field(default_factory=dict)
    _said: dict[tuple[str, str, str], Place] = field(default_factory=dict)
    """Where a document says each key."""
    _unknown_classes: set[tuple[Place, str]] = field(default_factory=set)

    def read(self, document: Document) -> bool:
        """Add what a document says. Return whether it is about circuit breakers."""
        found = False
        self._said.clear()
        for path, table, key in leaves(document.root, ()):
            if [canonical(part) for part in path[:2]] == ["resilience4j", SECTION]:
                found = True
                self._take(path[2:], table, key)
        self.problems += other_sections(document)
        return found

    def override(self, variables: Mapping[str, str]) -> None:
        """Replace keys by Spring's own variables, which count more than its files."""
        names = {"instances": self.instances, "configs": {DEFAULT, *self.configs}}
        found, problems = spring_variables(variables, names)
        self.problems += problems
        self._said.clear()
        lists: set[tuple[str, str, str]] = set()
        for variable, group, name, key in found:
            table = Table(variable)
            table.put(key[0], variables[variable], NO_MARK, NO_MARK)
            whole = (group, name, canonical(key[0]))
            if whole not in lists:  # a list of variables replaces that of a file
                lists.add(whole)
                getattr(self, group).get(name, {}).pop(whole[2], None)
            self._take_key(
                group, f"[{name}]" if _SPECIAL.search(name) else name, key, table, key[0]
            )

    def _take(self, path: tuple[str, ...], table: Table, key: str) -> None:
        group = GROUPS.get(canonical(path[0])) if path else None
        if not path:
            self.problems.append(without_keys(table, key))
        elif group is None:
            self._beside(path[0], table.key_place(key))
        elif len(path) < 3:  # noqa: PLR2004 - group, name and key
            if table[key] not in (None, {}):
                self._add(table.place(key), ".".join(path), "a mapping", _shown(table, key), BELOW)
            elif len(path) > 1:
                self._named(group, path[1], table.key_place(key))
        else:
            self._take_key(group, path[1], path[2:], table, key)

    def _named(self, group: str, name: str, place: Place) -> dict[str, Value]:
        """Return the keys of an instance or a configuration."""
        plain = name.removeprefix("[").removesuffix("]")
        if plain == name and _SPECIAL.search(name):
            self._add(
                place,
                f"the name {name!r}",
                "in brackets, as in '[/a.B/C]'",
                name,
                f"write '[{name}]': Spring drops / and . from names without brackets",
                severity=Severity.WARNING,
            )
        if group == "instances":
            self.places.setdefault(plain, place)
        return getattr(self, group).setdefault(plain, {})  # type: ignore[no-any-return] # a dict

    def _beside(self, name: str, place: Place) -> None:
        note = NOTED_SECTIONS.get(canonical(name))
        if note is not None:
            self._note(place, name, note)
            return
        near = nearest(name, ("instances", "configs"))
        remedy = f"did you mean {near}?" if near else "remove it: Spring ignores it silently"
        where = "a key of resilience4j.circuitbreaker"
        known = "instances or configs"
        self._add(place, where, known, name, remedy, severity=Severity.WARNING)

    def _take_key(
        self, group: str, name: str, rest: tuple[str, ...], table: Table, written: str
    ) -> None:
        keys = self._named(group, name, table.key_place(written))
        key = KEYS.get(canonical(rest[0]))
        in_list = len(rest) == 2 and rest[1].strip("[]").isdigit()  # noqa: PLR2004 - an index
        if key is None:
            self._unknown(name, ".".join(rest), table.key_place(written))
            return
        place, value = table.place(written), table[written]
        if len(rest) > 1 and not in_list:
            where = table.key_place(written)
            self._refuse(key, name, where, "a mapping", f"write {key.accepted} in its place")
            return
        if in_list:
            before = keys.get(canonical(key.name))
            value = [*(before.value if before is not None else ()), value]
        meant = key.meaning(value)
        if isinstance(meant, Misread):
            remedy = meant.remedy if key.read is None else shown_remedy(meant.remedy, place)
            self._refuse(key, name, place, _shown(table, written), remedy)
            return
        if not in_list:
            self._warn_of_another(group, name, key, table.key_place(written))
        keys[canonical(key.name)] = Value(meant, _place_of(table, written))
        if key.note and not (meant is False and key.name.startswith("enable")):
            self._note(table.key_place(written), f"{key.name} of {name}", key.note)
        if "milliseconds" in key.accepted and _looks_like_seconds(value):
            self._add(
                place,
                f"{key.name} of {name}",
                "a duration with a unit, because a plain number is milliseconds",
                _shown(table, written),
                "write a unit, such as 60s or 60ms",
                severity=Severity.WARNING,
            )

    def _warn_of_another(self, group: str, name: str, key: Key, place: Place) -> None:
        """Warn of a key that a document says twice, in two ways of writing it."""
        first = self._said.setdefault((group, name, key.name), place)
        if first is not place:
            self._add(
                place,
                f"{key.name} of {name}",
                "given once, because this one replaces the other",
                f"it again after {first}",
                "remove one of them",
                severity=Severity.WARNING,
            )

    def _refuse(self, key: Key, name: str, place: Place, value: str, remedy: str) -> None:
        self.broken.add(name.removeprefix("[").removesuffix("]"))
        self._add(place, f"{key.name} of {name}", key.accepted, value, remedy)

    def _unknown(self, name: str, key: str, place: Place) -> None:
        near = MISTAKEN.get(canonical(key)) or nearest(canonical(key), KEYS)
        remedy = f"did you mean {KEYS[near].name}?" if near else "remove it"
        self._add(
            place,
            f"a key of {name}",
            "one that resilience4j knows, because Spring ignores others silently",
            key,
            remedy,
            severity=Severity.WARNING,
        )

    def _note(self, place: Place, subject: str, note: str) -> None:
        self._add(
            place,
            subject,
            "known to readers",
            "a key of resilience4j",
            note,
            severity=Severity.NOTE,
        )

    def _add(
        self,
        place: Place,
        subject: str,
        accepted: str,
        value: str,
        remedy: str,
        *,
        severity: Severity = Severity.ERROR,
    ) -> None:
        self.problems.append(Problem(place, subject, accepted, value, remedy, severity))

    # Together.

    def to_layer(self) -> Layer:
        """Return what all files mean, in our own form."""
        layer = Layer()
        if DEFAULT in self.configs:
            fields = self._fields(DEFAULT, self._chain(DEFAULT, self.configs[DEFAULT]))
            layer.defaults = {key: one for key, one in fields.items() if key != "mode"}
            if DEFAULT in self.broken:
                layer.broken.add(("defaults", ""))
        for name, own in self.instances.items():
            chain = self._chain(name, own)
            layer.circuits[name] = self._fields(name, chain)
            layer.names_at["circuits", name] = self.places[name]
            if self.broken & {name, *(link for link, _ in chain)}:
                layer.broken.add(("circuits", name))
            needs = first_of(chain, "allowHealthIndicatorToFail")
            if needs is not None and needs.value:
                layer.ready_needs[name] = None
        return layer

    def _chain(self, name: str, own: dict[str, Value]) -> list[tuple[str, dict[str, Value]]]:
        """Return the keys of an instance and of what it inherits from, the nearest first."""
        chain = [("", own)]
        link, keys, seen = name, own, {name} if own is self.configs.get(name) else set()
        while True:
            named = keys.get(canonical("baseConfig"))
            if named is not None:
                base = named.value
                if base in seen or base not in self.configs:
                    self._wrong_base(link, named, circle=base in seen)
                    return chain
                link, keys = base, self.configs[base]
            elif keys is own and link in self.configs and keys is not self.configs[link]:
                return [*chain, (link, self.configs[link])]
            elif keys is own and DEFAULT in self.configs and link != DEFAULT:
                link, keys = DEFAULT, self.configs[DEFAULT]
            else:
                return chain
            seen.add(link)
            chain.append((link, keys))

    def _wrong_base(self, name: str, named: Value, *, circle: bool) -> None:
        near = nearest(named.value, self.configs)
        accepted = (
            "a configuration that does not lead back to itself"
            if circle
            else (
                f"one of {', '.join(self.configs)}"
                if self.configs
                else "the name of one of configs"
            )
        )
        remedy = (
            "remove one of the keys called baseConfig"
            if circle
            else (f"did you mean {near}?" if near else "add it to configs")
        )
        shown = shown_value(named.value, named.place)
        remedy = remedy if circle else shown_remedy(remedy, named.place)
        problem = Problem(named.place, f"baseConfig of {name}", accepted, shown, remedy)
        if problem not in self.problems:
            self.problems.append(problem)

    def _fields(self, name: str, chain: list[tuple[str, dict[str, Value]]]) -> Fields:
        """Return what an instance means."""
        got = Getter(chain)
        fields = {"failure_threshold": Origin(None, None, THEIRS)}
        size = got("slidingWindowSize", 100)
        by_time = got("slidingWindowType", "COUNT_BASED").value == "TIME_BASED"
        minimum = got("minimumNumberOfCalls", 100)
        fields["window_calls"] = size._replace(value=None if by_time else size.value)
        fields["window_seconds"] = size._replace(value=float(size.value) if by_time else None)
        if not by_time and minimum.value > size.value:
            minimum = Origin(size.value, size.place, "slidingWindowSize, which is less")
        fields["minimum_calls"] = minimum
        fields["failure_rate_threshold"] = got("failureRateThreshold", 0.5)
        fields["slow_call_rate_threshold"] = got("slowCallRateThreshold", 1.0)
        fields["slow_call_duration"] = got("slowCallDurationThreshold", 60.0)
        fields["recovery_timeout"] = got("waitDurationInOpenState", 60.0)
        fields["half_open_max_calls"] = got("permittedNumberOfCallsInHalfOpenState", 10)
        fields |= self._waiting(name, got)
        state = got("initialState", "CLOSED")
        if state.place is not None:
            mode = "automatic" if state.value == "CLOSED" else state.value.lower()
            fields["mode"] = state._replace(value=mode)
        return fields | self._exceptions(name, got)

    def _waiting(self, name: str, got: Getter) -> Fields:
        fields = {
            "recovery_timeout_growth": Origin(1.0, None, THEIRS),
            "recovery_timeout_jitter": Origin(0.0, None, THEIRS),
            "recovery_timeout_max": Origin(None, None, THEIRS),
        }
        grows, varies = got("enableExponentialBackoff", None), got("enableRandomizedWait", None)
        if grows.value:
            fields["recovery_timeout_growth"] = got("exponentialBackoffMultiplier", 1.5)
            fields["recovery_timeout_max"] = got("exponentialMaxWaitDurationInOpenState", None)
        if varies.value:
            fields["recovery_timeout_jitter"] = got("randomizedWaitFactor", 0.5)
        if grows.value and varies.value and varies.place is not None:
            self._add(
                varies.place,
                f"enableRandomizedWait of {name}",
                "false while enableExponentialBackoff is true, because resilience4j takes only one",
                "true",
                "keep both for Fusewire alone, or remove one",
                severity=Severity.WARNING,
            )
        return fields

    def _exceptions(self, name: str, got: Getter) -> Fields:
        """Return the exceptions that are recorded and ignored, and what judges by them."""
        lenient = bool(got("ignoreClassBindingExceptions", None).value)
        record, ignore = got("recordExceptions", None), got("ignoreExceptions", None)
        if record.place is None and ignore.place is None:
            return {}
        recorded = self._classes(name, "recordExceptions", record, lenient=lenient)
        ignored = self._classes(name, "ignoreExceptions", ignore, lenient=lenient)
        classifier = SpringClassifier(None if record.place is None else recorded, ignored)
        place = record.place or ignore.place
        fields = {"classify_exception": Origin(classifier, place, record.through)}
        if record.place is not None:
            fields["expected_exceptions"] = record._replace(value=recorded)
        if ignore.place is not None:
            fields["ignored_exceptions"] = ignore._replace(value=ignored)
        if place is not None and name.startswith("/"):
            self._note(place, f"exceptions of {name}", "of no effect on gRPC: its status decides")
        return fields

    def _classes(
        self, name: str, key: str, given: Origin, *, lenient: bool
    ) -> tuple[type[BaseException], ...]:
        known = JAVA_EXCEPTIONS | dict(self.java_exceptions)
        classes: dict[type[BaseException], None] = {}
        for index, each in enumerate(given.value or ()):
            found = read_exception(each, known)
            if not isinstance(found, Misread):
                classes[found] = None
                continue
            place = given.place or self.places.get(name, Place("the files"))
            if isinstance(given.value, Row):  # others of the list are no secret
                place = given.value.place(index)
            shown = shown_value(each, place)
            if (place, shown) in self._unknown_classes:  # by another one that inherits it
                continue
            self._unknown_classes.add((place, shown))
            remedy = shown_remedy(found.remedy, place)
            severity = Severity.WARNING if lenient else Severity.ERROR
            accepted = "exception classes that are known"
            self._add(place, f"{key} of {name}", accepted, shown, remedy, severity=severity)
        return tuple(classes)


def _looks_like_seconds(value: object) -> bool:
    """Return whether a plain number, which is milliseconds, was rather meant as seconds."""
    text = str(value).strip()
    return text.isdecimal() and int(text[:9]) < _MANY_MILLISECONDS


def _place_of(table: Table, key: str) -> Place:
    place, value = table.place(key), table[key]
    if isinstance(value, Row) and value.placeholders:
        return place._replace(placeholder=next(iter(value.placeholders.values())))
    return place


def _shown(table: Table, key: str) -> str:
    return shown_value(table[key], table.place(key))
