"""Which documents of a file are active: those for every profile, and those for an active one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fusewire.config._files import OURS, is_for_us
from fusewire.config._problems import Place, Problem, Severity, shown_value
from fusewire.config._spring_keys import canonical
from fusewire.config._tree import Row, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.config._tree import Document

_ON_PROFILE = ("spring.config.activate.on-profile", "spring.profiles")
"""The second is the name before Spring Boot 2.4."""
_ON_PLATFORM = ("spring.config.activate.on-cloud-platform",)
_ACTIVE = ("spring.profiles.active",)
_VARIABLE = "SPRING_PROFILES_ACTIVE"
_DEFAULT = ("default",)
"""What Spring takes as the active profile if there is none."""

_GROUP = re.compile(r"\(([^()]*)\)")
_NAME = re.compile(r"(!*)([^!\s]+)")
_TRUE, _FALSE = "\x01", "\x00"
"""What a group in brackets becomes. No profile of a file has these names."""


class _Setting(NamedTuple):
    value: object
    place: Place


def active_of(
    documents: list[Document], profiles: tuple[str, ...]
) -> tuple[list[Document], list[Problem]]:
    """Return the documents of a file that are active, and what is wrong with those for us."""
    active, problems = [], []
    for document in documents:
        wanted = _profiles_of(document)
        found = [_is_true(each, profiles or _DEFAULT) for each in wanted or ()]
        if wanted is None or any(found):
            active.append(document)
        if not is_for_us(document):
            continue
        if None in found:
            problems.append(_malformed(document))
        if wanted is None and OURS in document.root and document is not documents[0]:
            problems.append(_for_every_profile(document))
        if (platform := _find(document, _ON_PLATFORM)) is not None:
            problems.append(_on_platform(platform))
    return active, problems


def forgotten(documents: list[Document], variables: Mapping[str, str]) -> Problem | None:
    """Warn of profiles that Spring would take as active, where none were given to us."""
    if _VARIABLE in variables:
        names, place = variables[_VARIABLE], Place(_VARIABLE)
    else:
        settings = [one for each in documents if (one := _find(each, _ACTIVE)) is not None]
        if not settings:
            return None
        value, place = settings[-1]
        names = ",".join(map(str, value)) if isinstance(value, Row) else str(value)
    if "${" in names or not names.strip():
        return None
    return Problem(
        place,
        "the profile",
        "given to load() or to the command, because files are read for that one alone",
        f"only {names} here, so that documents for profiles were left out",
        f"give profile={names!r}, or --profile {names}",
        Severity.WARNING,
    )


def _profiles_of(document: Document) -> list[str] | None:
    """Return the profiles that a document is for; None if it is for any."""
    setting = _find(document, _ON_PROFILE)
    if setting is None:
        return None
    wanted = setting.value if isinstance(setting.value, Row) else str(setting.value).split(",")
    return [str(each).strip() for each in wanted]


def _is_true(wanted: str, profiles: tuple[str, ...]) -> bool | None:
    """Return whether an expression such as ``prod & (eu | !us)`` is true; None if it is none."""
    while group := _GROUP.search(wanted):
        inner = _is_true_flat(group[1], profiles)
        if inner is None:
            return None
        wanted = f"{wanted[: group.start()]} {_TRUE if inner else _FALSE} {wanted[group.end() :]}"
        wanted = re.sub(r"!\s+", "!", wanted)
    return _is_true_flat(wanted, profiles)


def _is_true_flat(wanted: str, profiles: tuple[str, ...]) -> bool | None:
    """Do it for an expression without brackets, which has one kind of operator alone."""
    if "&" in wanted and "|" in wanted:
        return None
    terms = [
        _NAME.fullmatch(re.sub(r"!\s+", "!", term.strip())) for term in re.split("[&|]", wanted)
    ]
    truths = [
        (term[2] == _TRUE or term[2] in profiles) != (len(term[1]) % 2 == 1)
        for term in terms
        if term is not None and not {*"()$"} & {*term[2]}  # nor a placeholder
    ]
    if len(truths) != len(terms):
        return None
    return all(truths) if "&" in wanted else any(truths)


def _find(document: Document, names: tuple[str, ...]) -> _Setting | None:
    """Return what is said under one of these names, however its dots and levels are written."""
    wanted = {canonical(name) for name in names}
    waiting = [("", document.root)]
    while waiting:
        above, table = waiting.pop()
        for key, value in table.items():
            path = above + canonical(key)
            if not isinstance(value, Table):
                if path in wanted:
                    return _Setting(value, table.place(key))
            elif any(name.startswith(f"{path}.") for name in wanted):
                waiting.append((f"{path}.", value))
    return None


def _for_every_profile(document: Document) -> Problem:
    return Problem(
        document.key_place((OURS,)),
        "a second document",
        "for a profile, by spring.config.activate.on-profile",
        "one for every profile",
        "remove the line --- and write one document, or name the profile",
    )


def _malformed(document: Document) -> Problem:
    setting = _find(document, _ON_PROFILE)
    assert setting is not None  # noqa: S101 - it has been read
    return Problem(
        setting.place,
        "the profile of a document",
        "a name, or names with !, & and |",
        shown_value(setting.value, setting.place),
        "close each bracket, and put brackets around & where | stands beside it",
    )


def _on_platform(platform: _Setting) -> Problem:
    return Problem(
        platform.place,
        "a document",
        "for a profile, and not for a platform, which nobody knows here",
        f"one for {platform.value}",
        "write spring.config.activate.on-profile, and give that profile",
    )
