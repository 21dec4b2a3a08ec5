"""Finds the name or pattern that is for a circuit, of a thousand as fast as of ten."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class Patterns:
    """Names of circuits and patterns such as ``"/payments.*"``, compiled.

    An exact name comes first, then the longest pattern that matches; of equally long ones, the one
    that was given first. ``*``, ``?`` and ``[…]`` work as in a shell.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self._names = frozenset(patterns)
        rank = {pattern: (-len(pattern), at) for at, pattern in enumerate(patterns)}
        wild = sorted(
            (one for one in patterns if any(c in one for c in "*?[")), key=rank.__getitem__
        )
        self._rank = rank
        # Most patterns are a beginning and a star, and are found by that beginning.
        self._beginnings = {one[:-1]: one for one in wild if _is_beginning(one)}
        self._lengths = sorted({len(one) for one in self._beginnings}, reverse=True)
        # The others are one expression, whose first alternative that matches ranks first.
        self._others = [one for one in wild if not _is_beginning(one)]
        alternatives = (f"(?P<p{n}>{fnmatch.translate(one)})" for n, one in enumerate(self._others))
        self._expression = re.compile("|".join(alternatives)) if self._others else None

    def find(self, name: str) -> str | None:
        """Return the name or pattern that is for the circuit called `name`, None if none is."""
        if name in self._names:
            return name
        found = [one for one in (self._by_beginning(name), self._by_expression(name)) if one]
        return min(found, key=self._rank.__getitem__, default=None)

    def _by_beginning(self, name: str) -> str | None:
        for length in self._lengths:
            pattern = self._beginnings.get(name[:length])
            if pattern is not None and length <= len(name):
                return pattern
        return None

    def _by_expression(self, name: str) -> str | None:
        matched = None if self._expression is None else self._expression.match(name)
        if matched is None or matched.lastgroup is None:
            return None
        return self._others[int(matched.lastgroup[1:])]


def _is_beginning(pattern: str) -> bool:
    return pattern.endswith("*") and not any(letter in pattern[:-1] for letter in "*?[")
