"""What is wrong in files: a value for each problem, and one error for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from fusewire._validation import shown
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]*):\S*@")


class Severity(StrEnum):
    """How bad a problem is."""

    ERROR = "error"
    """Nothing is applied."""

    WARNING = "warning"
    """The file is applied without what the problem is about, which may have been meant."""

    NOTE = "note"
    """The file is applied; a reader should know what becomes of a key."""


class Place(NamedTuple):
    """Where a value comes from.

    Attributes:
        source: the file's path as it was given, or the name of an environment variable.
        line: the line, counted from 1; 0 if there is none.
        column: the column, counted from 1; 0 if there is none.
        placeholder: what is written there if the value came from a variable, such as
            ``"${TIMEOUT}"``. It is shown in place of the value, which may be secret.
    """

    source: str
    line: int = 0
    column: int = 0
    placeholder: str = ""

    def __str__(self) -> str:
        source = _on_one_line(self.source)
        return f"{source}:{self.line}:{self.column}" if self.line else source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file or a variable, or that a reader should know.

    Its text is one line: of line breaks and what cannot be printed, it shows the escapes.

    Attributes:
        place: where it is.
        subject: what it is about, such as ``"recovery_timeout"``.
        accepted: what is accepted there, as said after "must be".
        value: what is there, as text. Never a URL's password, nor a value that came from ``${…}``.
        remedy: what to do, with the nearest name where one was misspelt.
        severity: how bad it is.
    """

    place: Place
    subject: str
    accepted: str
    value: str
    remedy: str
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        # Here, so that no problem can be made that shows a password, or looks like several.
        for name in ("subject", "accepted", "value", "remedy"):
            text = _on_one_line(without_passwords(getattr(self, name)))
            object.__setattr__(self, name, text)

    def __str__(self) -> str:
        if self.severity is Severity.NOTE:
            return f"{self.place}: {self.subject}: {self.remedy}"
        return (
            f"{self.place}: {self.subject} must be {self.accepted}, got {self.value}; {self.remedy}"
        )


class ConfigError(SettingsError):
    """Files or variables have problems, and nothing of them is applied.

    Its text lists what is wrong.

    Attributes:
        problems: what is wrong, and also the warnings and notes, in the order of the files and
            lines.
        errors: those of them that are wrong.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        self.errors = tuple(one for one in self.problems if one.severity is Severity.ERROR)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.errors)
        lines = "".join(f"\n  {problem}" for problem in self.errors)
        return f"{count} problem{'' if count == 1 else 's'} in the configuration:{lines}"


def without_passwords(text: str) -> str:
    """Return `text` with ``***`` for the passwords of URLs in it."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def _on_one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shown_remedy(remedy: str, place: Place) -> str:
    """Return a remedy that was found by looking at a value, unless that may be secret."""
    if place.placeholder:
        return f"correct what {place.placeholder} stands for"
    return remedy


def shown_value(value: object, place: Place) -> str:
    """Return how problems show a value: what is written, and no secret."""
    if place.placeholder:
        return f"the value of {place.placeholder}, which is not shown"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    # First, because what is cut off may be the end of a password.
    return shown(without_passwords(value) if isinstance(value, str) else value)
