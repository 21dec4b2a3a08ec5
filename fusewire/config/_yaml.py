"""Reads YAML and JSON, and remembers where each key and value is written.

Events come from PyYAML, by its loader in C where it has that. Nothing is constructed but mappings,
lists, texts, numbers and switches: a file runs no code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from fusewire.config._problems import Place, Problem
from fusewire.config._tree import Document, Mark, Row, Table, plain_value

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # an install may lack the C library

_MOST_DEPTH = 50
_MERGE = "<<"
_STRING_OR_TAB = re.compile(r'"(?:[^"\\]|\\.)*"|\t')
_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


def read_documents(text: str, source: str, *, json: bool) -> tuple[list[Document], list[Problem]]:
    """Read all documents of a text.

    Args:
        text: the text.
        source: the file's path, or the name of a variable.
        json: whether it is JSON: YAML but for tabs and for pairs of surrogates.
    """
    roots, problems = _read(_as_yaml(text) if json else text, source, "JSON" if json else "YAML")
    documents = []
    for root, (line, column) in roots if roots or problems else [(None, (0, 0))]:
        start = Place(source, line + 1, column + 1)
        if isinstance(root, Table):
            documents.append(Document(root, start))
        else:
            problems.append(
                Problem(
                    start,
                    "a document",
                    "a mapping with the key fusewire, or a Spring Boot file",
                    "nothing" if root is None else "a list" if isinstance(root, Row) else "a value",
                    "begin the file with fusewire:",
                )
            )
    return documents, problems


def read_value(text: str, source: str) -> tuple[object, list[Problem]]:
    """Read the one value of a variable. Values that were written inside it know their places."""
    roots, problems = _read(_as_yaml(text), source, "YAML or JSON")
    if len(roots) > 1:
        problems.append(
            Problem(Place(source), "a variable", "one value", "several", "remove the line ---")
        )
    return (roots[0][0] if roots else None), problems


def _read(text: str, source: str, form: str) -> tuple[list[tuple[object, Mark]], list[Problem]]:
    """Return what each document of a text holds, and where that begins."""
    reader = _Reader(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.YAMLError as error:
        reader.problems.append(_unreadable(error, source, form))
    return reader.roots, reader.problems


def _as_yaml(text: str) -> str:
    """Return JSON as YAML: a tab between tokens is a space, and a pair of surrogates one letter."""
    text = _STRING_OR_TAB.sub(lambda found: " " if found[0] == "\t" else found[0], text)
    return _PAIR.sub(_letter, text)


def _letter(pair: re.Match[str]) -> str:
    units = int(pair[1], 16), int(pair[2], 16)
    code = 0x10000 + ((units[0] - 0xD800) << 10) + (units[1] - 0xDC00)
    return f"\\U{code:08x}"


def _unreadable(error: yaml.YAMLError, source: str, form: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    place = Place(source, mark.line + 1, mark.column + 1) if mark is not None else Place(source)
    why = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    context = getattr(error, "context", None)
    return Problem(
        place,
        "the text here",
        form,
        f"what is none: {why}" + (f" {context}" if context else ""),
        _remedy_of(why),
    )


def _remedy_of(why: str) -> str:
    if "cannot start any token" in why:
        return "indent with spaces, not tabs, and quote values that begin with @ or a backquote"
    if "mapping values" in why:
        return "quote a value that holds a colon and a space, and check the indentation"
    if "end of stream" in why or "<stream end>" in why or "expected" in why:
        return "close the quote or bracket that is open, or write the value that is missing"
    if "nesting" in why:
        return "close the brackets that are open"
    if "control characters" in why or "special characters" in why:
        return "save the file as UTF-8 text"
    return "correct the text, or the indentation of this line and of the one before"


@dataclass(slots=True)
class _Frame:
    """A mapping or list that has begun and not ended."""

    value: Table | Row
    anchor: str | None
    start: Mark
    key: str | None = None
    key_at: Mark = (0, 0)
    skips: bool = False  # the key's value is left out: there was a problem with the key
    merged: list[tuple[object, Mark]] = field(default_factory=list)


_UNFINISHED = object()


class _Reader:
    """Builds the documents of a text from its events."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.roots: list[tuple[object, Mark]] = []
        self.problems: list[Problem] = []
        self._anchors: dict[str, object] = {}
        self._stack: list[_Frame] = []
        self._skipped = 0  # depth within what is left out

    def take(self, event: Any) -> None:
        """Take the next event."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._take_scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._begin(Table(self.source), event)
        elif kind is yaml.SequenceStartEvent:
            self._begin(Row(self.source), event)
        elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            self._end()
        elif kind is yaml.AliasEvent:
            self._take_alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._anchors = {}

    def _take_scalar(self, event: Any) -> None:
        if self._skipped:
            return
        if event.tag is not None and event.tag != "!":
            self._refuse_tag(event)
        if self._awaits_key():
            self._take_key(self._stack[-1], event.value, _mark(event))
            return
        plain = event.implicit[0] and not event.style
        value = plain_value(event.value) if plain else event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        self._put(value, _mark(event))

    def _awaits_key(self) -> bool:
        """Return whether the next event is a key of a mapping."""
        stack = self._stack
        return bool(stack) and stack[-1].key is None and type(stack[-1].value) is Table

    def _take_key(self, frame: _Frame, key: str, at: Mark) -> None:
        frame.key, frame.key_at = key, at
        if key in frame.value and key != _MERGE:
            assert isinstance(frame.value, Table)  # noqa: S101 - lists have no keys
            self._problem(
                at,
                "a key",
                "given once in a mapping",
                f"{key!r} again",
                f"remove one of them: the first is in line {frame.value.keys_at[key][0] + 1}",
            )
            frame.skips = True

    def _take_alias(self, event: Any) -> None:
        if self._skipped:
            return
        value = self._anchors.get(event.anchor, _UNFINISHED)
        if value is _UNFINISHED:
            self._problem(
                _mark(event),
                "an alias",
                "the name of an anchor that is complete before it",
                f"*{event.anchor}",
                f"write &{event.anchor} at the value that is meant, above",
            )
            value = None
        if self._awaits_key():
            self._take_key(self._stack[-1], str(value), _mark(event))
            return
        self._put(value, _mark(event))

    def _begin(self, value: Table | Row, event: Any) -> None:
        if self._skipped:
            self._skipped += 1
            return
        if event.tag is not None:
            self._refuse_tag(event)
        at = _mark(event)
        if self._awaits_key():
            frame = self._stack[-1]
            self._problem(at, "a key", "a text", "a mapping or list", "quote the key")
            frame.key, frame.key_at, frame.skips = "", at, True
            self._skipped = 1
            return
        if len(self._stack) >= _MOST_DEPTH:
            self._problem(
                at,
                "a value",
                f"at most {_MOST_DEPTH} levels deep",
                "one that is deeper",
                "close the brackets that are open",
            )
            self._put(None, at)
            self._skipped = 1
            return
        if event.anchor is not None:
            self._anchors[event.anchor] = _UNFINISHED
        self._stack.append(_Frame(value, event.anchor, at))

    def _end(self) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        frame = self._stack.pop()
        for merged, at in frame.merged:
            self._merge(frame.value, merged, at)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = frame.value
        self._put(frame.value, frame.start)

    def _put(self, value: object, at: Mark) -> None:
        """Put a finished value where it belongs."""
        if not self._stack:
            self.roots.append((value, at))
            return
        frame = self._stack[-1]
        if isinstance(frame.value, Row):
            frame.value.put(value, at)
            return
        key, frame.key = frame.key, None
        assert key is not None  # noqa: S101 - a key came before its value
        if frame.skips:
            frame.skips = False
        elif key == _MERGE:
            frame.merged.append((value, at))
        else:
            frame.value.put(key, value, frame.key_at, at)

    def _merge(self, into: Table | Row, merged: object, at: Mark) -> None:
        """Add what ``<<`` names: a mapping or several, of which the first counts most."""
        tables = merged if isinstance(merged, Row) else [merged]
        for table in tables:
            if not isinstance(table, Table) or not isinstance(into, Table):
                self._problem(
                    at,
                    "the value of <<",
                    "an alias of a mapping, or a list of them",
                    "something else",
                    "write <<: *name, with &name at a mapping",
                )
                continue
            for key in [key for key in table if key not in into]:
                into.put(key, table[key], table.keys_at[key], table.values_at[key])

    def _refuse_tag(self, event: Any) -> None:
        self._problem(
            _mark(event),
            "a value",
            "without a tag, because a file runs no code",
            f"the tag {event.tag!r}",
            "remove the tag",
        )

    def _problem(self, at: Mark, subject: str, accepted: str, value: str, remedy: str) -> None:
        place = Place(self.source, at[0] + 1, at[1] + 1)
        self.problems.append(Problem(place, subject, accepted, value, remedy))


def _mark(event: Any) -> Mark:
    return event.start_mark.line, event.start_mark.column
