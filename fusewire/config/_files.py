"""Reads files into documents, and picks those that are for the profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fusewire._validation import nearest
from fusewire.config._problems import Place, Problem
from fusewire.config._tree import Row, Table
from fusewire.config._yaml import read_documents

if TYPE_CHECKING:
    import os

    from fusewire.config._tree import Document

OURS, SPRINGS = "fusewire", "resilience4j"
_ON_PROFILE = ("spring", "config", "activate", "on-profile")


def read_file(path: str | os.PathLike[str]) -> tuple[list[Document], list[Problem]]:
    """Read a file in YAML or, if its name ends with ``.json``, in JSON."""
    source = str(path)
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


def chosen(documents: list[Document], profiles: tuple[str, ...]) -> list[Document]:
    """Return the documents that are for any profile, or for one of these."""
    return [
        document
        for document in documents
        if (wanted := _profiles_of(document)) is None
        or any(_is_active(each, profiles) for each in wanted)
    ]


def _profiles_of(document: Document) -> list[str] | None:
    """Return the profiles that a document is for; None if it is for any."""
    value: object = document.root
    keys = list(_ON_PROFILE)
    while keys and isinstance(value, Table):
        # Dots in a key are levels, as Spring reads them.
        taken = next((n for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in value), 0)
        if not taken:
            return None
        value = value[".".join(keys[:taken])]
        keys = keys[taken:]
    if keys:
        return None
    wanted = value if isinstance(value, Row) else str(value).split(",")
    return [str(each).strip() for each in wanted]


def _is_active(wanted: str, profiles: tuple[str, ...]) -> bool:
    """Return whether an expression such as ``prod & !eu`` is true of the profiles."""
    if "|" in wanted:
        return any(_is_active(each, profiles) for each in wanted.split("|"))
    if "&" in wanted:
        return all(_is_active(each, profiles) for each in wanted.split("&"))
    wanted = wanted.strip(" ()")
    name = wanted.lstrip("! ")
    return (name in profiles) != (wanted.count("!") % 2 == 1)


def _check_roots(documents: list[Document]) -> list[Problem]:
    """Find a file that says nothing to us, and a second document that is for every profile."""
    problems = []
    if not any(_is_for_us(document) for document in documents):
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
    problems += [
        Problem(
            document.key_place((OURS,)),
            "a second document",
            "for a profile, by spring.config.activate.on-profile",
            "one for every profile",
            "remove the line --- and write one document, or name the profile",
        )
        for document in documents[1:]
        if OURS in document.root and _profiles_of(document) is None
    ]
    return problems


def _like(key: str) -> str | None:
    return nearest(key.partition(".")[0], (OURS, SPRINGS), cutoff=0.75)


def _is_for_us(document: Document) -> bool:
    return OURS in document.root or any(key.partition(".")[0] == SPRINGS for key in document.root)


def _place_of_key(documents: list[Document], key: str) -> Place:
    return next(each.root.key_place(key) for each in documents if key in each.root)
