"""The environment as documents: each variable of ours is one, whose place is its name.

``FUSEWIRE_BREAKERS__DEFAULTS__RECOVERY_TIMEOUT=10s`` is the key ``breakers.defaults
.recovery_timeout``. Names with slashes do not fit into a variable's name, so
``FUSEWIRE_CIRCUITS`` holds circuits as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._model import Fusewire
from fusewire.config._names import with_name_of_files
from fusewire.config._problems import Place, Problem
from fusewire.config._tree import NO_MARK, Document, Table
from fusewire.config._yaml import read_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PREFIX = "FUSEWIRE_"
_CIRCUITS = "FUSEWIRE_CIRCUITS"
_SECTIONS = tuple(Fusewire.model_fields)
_KNOWN = (_CIRCUITS, *(f"{_PREFIX}{section.upper()}" for section in _SECTIONS))


def read_environment(
    variables: Mapping[str, str], files: Sequence[Document] = ()
) -> tuple[list[Document], list[Problem]]:
    """Return what variables of ours say, and what is wrong with their names and values.

    `files` are the documents whose names the variables may mean.
    """
    documents, problems = [], []
    for variable in sorted(variables):
        if not variable.startswith(_PREFIX):
            continue
        path = _path_of(variable)
        if path is not None:
            path, unclear = with_name_of_files(variable, path, files)
            value, found = read_value(variables[variable], variable)
            problems += [*found, *([unclear] if unclear else [])]
            if not found:
                documents.append(_document(variable, path, value))
        elif _is_misspelt(variable):
            problems.append(_unknown(variable))
    return documents, problems


def _path_of(variable: str) -> tuple[str, ...] | None:
    """Return the key that a variable is for, None if it is none of ours."""
    if variable == _CIRCUITS:
        return ("breakers", "circuits")
    path = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
    return path if path[0] in _SECTIONS else None


def _is_misspelt(variable: str) -> bool:
    """Return whether a variable seems to be meant for us.

    Others begin in the same way: those of the commands, and those that Kubernetes sets for a
    service called ``fusewire``.
    """
    return "__" in variable or nearest(variable, _KNOWN, cutoff=0.93) is not None


def _unknown(variable: str) -> Problem:
    first, double, rest = variable.partition("__")
    near = nearest(first, _KNOWN)
    known = [f"{_PREFIX}{section.upper()}__…" for section in _SECTIONS]
    return Problem(
        Place(variable),
        "a variable's name",
        " or ".join([_CIRCUITS, *known]),
        variable,
        f"did you mean {near}{double}{rest}?" if near else "rename it, or unset it",
    )


def _document(variable: str, path: tuple[str, ...], value: object) -> Document:
    for key in reversed(("fusewire", *path)):
        table = Table(variable)
        table.put(key, value, NO_MARK, NO_MARK)
        value = table
    assert isinstance(value, Table)  # noqa: S101 - there is a key at least
    return Document(value, Place(variable))
