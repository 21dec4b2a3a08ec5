"""Spring's own variables, such as ``RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE``.

Spring writes the names of properties in capitals, with an underscore for each dot, and without
hyphens; its former form has an underscore for each hyphen too. So a variable alone does not say
where a name ends and its key begins. It is read by the names that the files have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fusewire.config._problems import Place, Problem, Severity
from fusewire.config._spring_keys import KEYS, canonical

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PREFIX = "RESILIENCE4J_CIRCUITBREAKER_"
_WORDS = {"INSTANCES_": "instances", "BACKENDS_": "instances", "CONFIGS_": "configs"}
_KEY = re.compile(r"(.+?)(?:_(\d+))?_?")


class SpringVariable(NamedTuple):
    """A variable that is for a key of an instance or a configuration.

    Attributes:
        variable: its name.
        group: ``instances`` or ``configs``.
        name: the name there.
        key: the key, as the variable has it, and the index in a list if it has one.
    """

    variable: str
    group: str
    name: str
    key: tuple[str, ...]


def spring_variables(
    variables: Collection[str], names: Mapping[str, Collection[str]]
) -> tuple[list[SpringVariable], list[Problem]]:
    """Return the variables that are for circuit breakers, and those that fit no name of `names`.

    Args:
        variables: the names of all variables.
        names: the names that the files have, by group.
    """
    found, problems = [], []
    for variable in sorted(variables):
        if not variable.startswith(_PREFIX):
            continue
        rest = variable.removeprefix(_PREFIX)
        word = next((word for word in _WORDS if rest.startswith(word)), None)
        group = "" if word is None else _WORDS[word]
        parts = [] if word is None else _splits(rest.removeprefix(word), names[group])
        # One whose key is known, or else the longest name.
        chosen = next((one for one in parts if canonical(one[1][0]) in KEYS), None)
        chosen = chosen or next(iter(parts), None)
        if chosen is None:
            problems.append(_fits_nothing(variable))
        else:
            found.append(SpringVariable(variable, group, *chosen))
    return found, problems


def _splits(rest: str, names: Collection[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the names that `rest` may begin with, the longest first, each with its key."""
    found = [
        (len(form), name, tuple(part for part in key.groups() if part))
        for name in names
        for form in _forms(name)
        if rest.startswith(f"{form}_") and (key := _KEY.fullmatch(rest[len(form) + 1 :]))
    ]
    return [(name, key) for _, name, key in sorted(found, reverse=True)]


def _forms(name: str) -> set[str]:
    """Return how Spring writes a name in a variable."""
    upper = name.upper()
    return {re.sub(r"[^A-Z0-9]", "", upper), upper.replace("-", "_")}


def _fits_nothing(variable: str) -> Problem:
    return Problem(
        Place(variable),
        "a variable of resilience4j",
        "for an instance or a configuration that a file names",
        variable,
        "write it into the file: a name of its own cannot be told from its key here",
        Severity.WARNING,
    )
