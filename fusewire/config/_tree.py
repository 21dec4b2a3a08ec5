"""What a document holds: plain values, and the place of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from fusewire.config._problems import Place

Path: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

Mark: TypeAlias = tuple[int, int]
"""A line and a column, both counted from 0."""

NO_MARK: Mark = (-1, -1)


class Table(dict[str, object]):
    """A mapping, with the marks of its keys and values.

    Attributes:
        keys_at: where each key is written.
        values_at: where each value is written.
        placeholders: what is written in place of values that came from variables.
        source: the file or variable.
    """

    __slots__ = ("keys_at", "placeholders", "source", "values_at")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}
        self.placeholders: dict[str, str] = {}

    def put(self, key: str, value: object, key_at: Mark, value_at: Mark) -> None:
        """Set the value of a key, and where both are written."""
        self[key] = value
        self.keys_at[key] = key_at
        self.values_at[key] = value_at

    def place(self, key: str) -> Place:
        """Return where the value of a key is written."""
        return self._at(self.values_at.get(key, NO_MARK), self.placeholders.get(key, ""))

    def key_place(self, key: str) -> Place:
        """Return where a key is written."""
        return self._at(self.keys_at.get(key, NO_MARK), "")

    def _at(self, mark: Mark, placeholder: str) -> Place:
        return Place(self.source, mark[0] + 1, mark[1] + 1, placeholder)


class Row(list[object]):
    """A list, with the marks of its values. Its attributes are those of :class:`Table`."""

    __slots__ = ("placeholders", "source", "values_at")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.values_at: list[Mark] = []
        self.placeholders: dict[int, str] = {}

    def put(self, value: object, value_at: Mark) -> None:
        """Append a value, and where it is written."""
        self.append(value)
        self.values_at.append(value_at)

    def place(self, index: int) -> Place:
        """Return where a value is written."""
        line, column = self.values_at[index]
        return Place(self.source, line + 1, column + 1, self.placeholders.get(index, ""))


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file, or the environment.

    Attributes:
        root: what it holds.
        start: where that begins.
    """

    root: Table
    start: Place

    def place(self, path: Path) -> Place:
        """Return where the value at `path` is written, or the nearest value above it."""
        match self._find(path):
            case (Table() as table, str() as key) if key in table:
                return table.place(key)
            case (Row() as row, int() as index):
                return row.place(index)
        return self.start

    def key_place(self, path: Path) -> Place:
        """Return where the last key of `path` is written."""
        within, key = self._find(path)
        if isinstance(within, Table) and key in within:
            return within.key_place(str(key))
        return self.place(path)

    def value(self, path: Path) -> object:
        """Return the value at `path`, None if there is none."""
        value: object = self.root
        for key in path:
            if isinstance(value, Table):
                value = value.get(str(key))
            elif isinstance(value, Row) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def _find(self, path: Path) -> tuple[Table | Row, str | int]:
        """Return the mapping or list that the value at `path` is in, and its key there."""
        within: Table | Row = self.root
        last: str | int = ""
        value: object = self.root
        for key in path:
            if isinstance(value, Table) and key in value:
                within, last, value = value, str(key), value[str(key)]
            elif isinstance(value, Row) and isinstance(key, int) and key < len(value):
                within, last, value = value, key, value[key]
            else:
                break
        return within, last


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# No leading zero, which means octal to YAML 1.1 and nothing to YAML 1.2; no more digits than a
# number of ours could have.
_WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9]\d{0,17})(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")


def plain_value(text: str) -> object:
    """Return what an unquoted scalar means.

    As in YAML 1.2, so that ``no`` is a name, ``1:30`` is no 90 and ``010`` is no 8. What means
    something else to YAML 1.1 stays a text, which numbers and switches refuse with the remedy.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text
