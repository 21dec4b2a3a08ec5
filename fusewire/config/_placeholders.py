"""Placeholders such as ``${TIMEOUT:30s}``: values that a file takes from variables.

As in Spring: the name is looked up among the variables, as it is and in capitals with underscores,
then among the keys of the same files; what follows the first colon is the default, which may hold
further placeholders. What a placeholder stood for is never shown, because it may be secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fusewire._validation import nearest
from fusewire.config._problems import Place, Problem
from fusewire.config._tree import Row, Table, plain_value

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DEPTH = 8
_NAME = re.compile(r"\$\{\s*([A-Za-z0-9_.-]+)")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")


def variable_of(name: str) -> str:
    """Return the variable that stands for a key: ``my.time-out`` is ``MY_TIMEOUT``."""
    return _NOT_IN_NAMES.sub("_", name.replace("-", "")).upper()


@dataclass(slots=True)
class Placeholders:
    """Replaces placeholders in documents.

    Attributes:
        variables: the environment.
        properties: the values of the files, by dotted key.
        problems: what was wrong.
    """

    variables: Mapping[str, str]
    properties: Mapping[str, object] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def replace_in(self, root: Table, keys: list[str]) -> None:
        """Replace the placeholders in the values of these keys, and in all that they hold."""
        seen = {id(root)}
        waiting = self._replace([(root, key) for key in keys])
        while waiting:
            within = waiting.pop()
            if isinstance(within, Table | Row) and id(within) not in seen:
                seen.add(id(within))  # an alias may stand in several places
                entries = within if isinstance(within, Table) else range(len(within))
                waiting += self._replace([(within, key) for key in entries])

    def _replace(self, entries: list[tuple[Any, Any]]) -> list[object]:
        """Replace the placeholders that are values of mappings or lists; return all values."""
        for within, key in entries:
            written = within[key]
            if isinstance(written, str) and "${" in written:
                value = self._expand(written, within.place(key), 0)
                within.placeholders[key] = _names_in(written)
                within[key] = plain_value(value)
        return [within[key] for within, key in entries]

    def _expand(self, text: str, place: Place, depth: int) -> str:
        """Return `text` with its placeholders replaced; those that cannot be are left out."""
        parts, at = [], 0
        while (start := text.find("${", at)) >= 0:
            end = _end_of(text, start)
            if end < 0 or depth > _MOST_DEPTH:
                self._problem(
                    place,
                    "a placeholder",
                    "${NAME} or ${NAME:default}, and not lead back to itself",
                    _names_in(text),
                    "close it with }, or name another variable",
                )
                return ""
            parts += [text[at:start], self._value(text[start + 2 : end], place, depth)]
            at = end + 1
        return "".join([*parts, text[at:]])

    def _value(self, inner: str, place: Place, depth: int) -> str:
        """Return what stands for the placeholder ``${inner}``."""
        name, colon, default = _split(self._expand_name(inner, place, depth))
        for variable in (name, variable_of(name)):
            if variable in self.variables:
                return self.variables[variable]
        if name in self.properties:
            return self._expand(_as_text(self.properties[name]), place, depth + 1)
        if colon:
            return self._expand(default, place, depth + 1)
        near = nearest(name, self.variables, cutoff=0.8)
        self._problem(
            place,
            f"the variable {name} of a placeholder",
            "set, or have a default as in ${NAME:default}",
            "no such variable",
            f"set {name}" + (f", or did you mean {near}?" if near else ""),
        )
        return ""

    def _expand_name(self, inner: str, place: Place, depth: int) -> str:
        """Return ``inner`` with placeholders in its name replaced, and its default left alone."""
        name, colon, default = _split(inner)
        if "${" in name:
            name = self._expand(name, place, depth + 1)
        return f"{name}{colon}{default}"

    def _problem(self, place: Place, subject: str, accepted: str, value: str, remedy: str) -> None:
        self.problems.append(Problem(place, subject, accepted, value, remedy))


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names_in(text: str) -> str:
    """Return the placeholders of `text` without their defaults, which may be secret too."""
    return "".join(f"${{{name}}}" for name in _NAME.findall(text)) or "${"


def _end_of(text: str, start: int) -> int:
    """Return where the placeholder that begins at `start` ends, -1 if it does not."""
    depth = 0
    for at in range(start, len(text)):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    return -1


def _split(inner: str) -> tuple[str, str, str]:
    """Split at the first colon that is in no placeholder within."""
    depth = 0
    for at, letter in enumerate(inner):
        if inner.startswith("${", at):
            depth += 1
        elif letter == "}":
            depth -= 1
        elif letter == ":" and depth == 0:
            return inner[:at].strip(), ":", inner[at + 1 :]
    return inner.strip(), "", ""
