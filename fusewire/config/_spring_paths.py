"""The paths of a Spring Boot file: where dots are levels, and where they belong to a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fusewire.config._spring_keys import canonical
from fusewire.config._tree import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = {"instances": "instances", "backends": "instances", "configs": "configs"}
"""What holds entries by name, and what that is called; ``backends`` is a former name."""

_PARTS = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


def leaves(table: Table, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Table, str]]:
    """Yield the path, the mapping and the key of each value that is no mapping of keys.

    Dots in a key are levels, except in brackets, and in the names below ``instances``.
    """
    for key in table:
        is_name = len(path) == 3 and canonical(path[2]) in GROUPS  # noqa: PLR2004 - section and group
        whole = (*path, *([key] if is_name else split(key)))
        if path == () and canonical(whole[0]) != "resilience4j":
            continue
        value = table[key]
        if isinstance(value, Table) and value and len(whole) < 6:  # noqa: PLR2004 - a key at most
            yield from leaves(value, whole)
        else:
            yield whole, table, key


def split(key: str) -> list[str]:
    """Split a key at its dots; a name in brackets is one part, and keeps them."""
    found = _PARTS.finditer(key)
    return [f"[{part[1]}]" if part[1] is not None else part[2] for part in found] or [key]
