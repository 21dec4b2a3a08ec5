"""Reads files into documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._problems import Place, Problem, Severity
from fusewire.config._spring_keys import canonical
from fusewire.config._spring_sections import SECTION
from fusewire.config._tree import Table
from fusewire.config._yaml import read_documents

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

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


def says_nothing(files: Sequence[str], *, left_out: bool) -> Problem:
    """Return a warning that files say nothing.

    Args:
        files: the files.
        left_out: whether documents were left out, because their profiles are not active.
    """
    profiles = ", and give the profiles of documents that are for some" if left_out else ""
    return Problem(
        Place(files[0]),
        "the file" if len(files) == 1 else f"one of the {len(files)} files",
        "one that says something of breakers, consumers or forwarders",
        "nothing",
        f"write it below fusewire, or below resilience4j.circuitbreaker{profiles}",
        Severity.WARNING,
    )


def _check_roots(documents: list[Document]) -> list[Problem]:
    """Find a file that says nothing to us, and keys that are nearly for us."""
    for_us = any(is_for_us(document) for document in documents)
    nearly = [
        Problem(
            document.root.key_place(key),
            "a file" if not for_us else "a key of a file",
            _ROOTS if not for_us else "fusewire or resilience4j to be read",
            f"the key {key}",
            remedy,
            Severity.WARNING if for_us else Severity.ERROR,
        )
        for document in documents
        for key in document.root
        if (remedy := _remedy_for(key))
    ]
    if for_us:
        return nearly
    place, remedy = documents[0].start, "put the settings below the key fusewire"
    return nearly[:1] or [Problem(place, "a file", _ROOTS, "a mapping with neither", remedy)]


_ROOTS = "one with the key fusewire, or resilience4j.circuitbreaker as in Spring Boot"


def _remedy_for(key: str) -> str:
    """Return what to do with a key that is nearly for us; empty for another one."""
    first = key.partition(".")[0]
    if key == OURS or first == SPRINGS:
        return ""
    if nearest(canonical(first), (SECTION,), cutoff=0.75):
        return "put it below the key resilience4j, where it is called circuitbreaker"
    near = nearest(first, (OURS, SPRINGS), cutoff=0.75)
    return f"did you mean {near}?" if near else ""
