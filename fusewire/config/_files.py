"""Reads files into documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._problems import Place, Problem
from fusewire.config._tree import Table
from fusewire.config._yaml import read_documents

if TYPE_CHECKING:
    import os

    from fusewire.config._tree import Document

OURS, SPRINGS = "fusewire", "resilience4j"


def read_file(path: str | os.PathLike[str]) -> tuple[list[Document], list[Problem]]:
    """Read a file in YAML or, if its name ends with ``.json``, in JSON."""
    source = str(path)
    if source.endswith(".properties"):
        remedy = "write its keys as YAML, where dots in keys are levels too: key: value"
        got = "a file of properties"
        return [], [Problem(Place(source), "the file", "in YAML or JSON", got, remedy)]
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or type(error).__name__
        remedy = "correct the path, or make it readable"
        return [], [Problem(Place(source), "the file", "one that can be read", why, remedy)]
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        wrong = f"the byte 0x{error.object[error.start]:02x}"
        place = Place(source, line, column)
        return [], [Problem(place, "the file", "UTF-8", wrong, "save the file as UTF-8")]
    except ValueError:  # a null in the path
        return [], [
            Problem(Place(repr(source)), "the file", "a path", "one with a null", "correct it")
        ]
    documents, problems = read_documents(text, source, json=source.endswith(".json"))
    if not problems:
        problems += _check_roots(documents)
    return documents, problems


def sections_of(document: Document) -> list[str]:
    """Return the keys at the top of a document that are for us."""
    return [key for key in document.root if key == OURS or key.partition(".")[0] == SPRINGS]


def properties_of(documents: list[Document]) -> dict[str, object]:
    """Return the single values of documents by dotted key, of which later ones count more."""
    properties: dict[str, object] = {}
    seen: set[int] = set()
    waiting = [("", document.root) for document in reversed(documents)]
    while waiting:
        above, table = waiting.pop()
        seen.add(id(table))
        for key, value in table.items():
            if not isinstance(value, Table):
                properties[f"{above}{key}"] = value
            elif id(value) not in seen:  # an alias may stand in many places
                waiting.append((f"{above}{key}.", value))
    return properties


def is_for_us(document: Document) -> bool:
    """Return whether a document has a section that is for us."""
    return OURS in document.root or any(key.partition(".")[0] == SPRINGS for key in document.root)


def _check_roots(documents: list[Document]) -> list[Problem]:
    """Find a file that says nothing to us."""
    problems = []
    if not any(is_for_us(document) for document in documents):
        keys = [key for document in documents for key in document.root]
        near = next((key for key in keys if _like(key)), None)
        place = documents[0].start if near is None else _place_of_key(documents, near)
        problems.append(
            Problem(
                place,
                "a file",
                "one with the key fusewire, or resilience4j.circuitbreaker as in Spring Boot",
                "a mapping with neither" if near is None else f"the key {near}",
                "put the settings below the key fusewire"
                if near is None
                else f"did you mean {_like(near)}?",
            )
        )
    return problems


def _like(key: str) -> str | None:
    return nearest(key.partition(".")[0], (OURS, SPRINGS), cutoff=0.75)


def _place_of_key(documents: list[Document], key: str) -> Place:
    return next(each.root.key_place(key) for each in documents if key in each.root)
