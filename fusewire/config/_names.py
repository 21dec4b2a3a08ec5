"""Names that files have, and that variables can write only in capitals and with underscores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fusewire.config._files import OURS
from fusewire.config._problems import Place, Problem
from fusewire.config._spring_keys import canonical
from fusewire.config._spring_paths import GROUPS, leaves
from fusewire.config._tree import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fusewire.config._tree import Document

_CIRCUITS = ("breakers", "circuits")
_SECTIONS = (_CIRCUITS, ("breakers", "bases"), ("consumers",), ("forwarders",))
_NAME_AND_KEY = 5
"""The parts of a key of a Spring Boot file's instance."""


def with_name_of_files(
    variable: str, path: tuple[str, ...], documents: Sequence[Document]
) -> tuple[tuple[str, ...], Problem | None]:
    """Return the path of a variable with the name that files have in place of the variable's.

    ``USER_SERVICE`` is ``user-service`` if files have that. If no name of files fits, the variable
    brings a new one; if several do, that is a problem.
    """
    for section in _SECTIONS:
        at = len(section)
        if path[:at] != section or len(path) <= at:
            continue
        names = set(_names(section, documents))
        fitting = sorted(name for name in names if _in_variables(name) == path[at])
        if path[at] in names or not fitting:
            break
        if len(fitting) > 1:
            return path, _ambiguous(variable, fitting, circuits=section == _CIRCUITS)
        return (*section, fitting[0], *path[at + 1 :]), None
    return path, None


def _in_variables(name: str) -> str:
    """Return how a variable writes a name, in small letters."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _names(section: tuple[str, ...], documents: Sequence[Document]) -> Iterator[str]:
    for document in documents:
        table = document.value((OURS, *section))
        if isinstance(table, Table):
            yield from table
        if section == _CIRCUITS:
            yield from _instances(document)


def _instances(document: Document) -> Iterator[str]:
    """Yield the names that a Spring Boot file has for circuits."""
    for path, _, _ in leaves(document.root, ()):
        if len(path) >= _NAME_AND_KEY and GROUPS.get(canonical(path[2])) == "instances":
            yield path[3].removeprefix("[").removesuffix("]")


def _ambiguous(variable: str, names: list[str], *, circuits: bool) -> Problem:
    return Problem(
        Place(variable),
        "the name in a variable",
        "that of one circuit, base or queue",
        f"one that fits {' and '.join(names)}",
        "use FUSEWIRE_CIRCUITS, which holds any name" if circuits else "write it into a file",
    )
