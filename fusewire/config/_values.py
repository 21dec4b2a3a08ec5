"""How single values are written in files: durations, fractions, counts, switches.

Each function returns the value, or the problem with it. What a setting accepts stands in one place,
:mod:`fusewire._validation`; here stands how it is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from fusewire._validation import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire._validation import Rule


@dataclass(frozen=True, slots=True)
class Misread:
    """A value that is not accepted.

    Attributes:
        remedy: what to write.
        accepted: what is accepted, where that differs from what the kind accepts.
    """

    remedy: str
    accepted: str = ""


SECONDS_OF = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
"""Seconds of each unit; the same units as Spring's."""

_NUMBER = r"(?:\d{1,15}(?:\.\d{0,9})?)"
_PART = re.compile(rf"({_NUMBER})\s?(ns|us|ms|s|m|h|d)")
_PARTS = re.compile(rf"(?:{_NUMBER}\s?(?:ns|us|ms|s|m|h|d)\s?)+")
_ISO = re.compile(
    rf"P(?:({_NUMBER})D)?(?:T(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?", re.IGNORECASE
)
_PERCENT = re.compile(rf"({_NUMBER})\s?%")
_CLOCK = re.compile(r"(\d{1,4}):([0-5]?\d)")
_SPELT_UNITS = {
    "msec": "ms",
    "millis": "ms",
    "milliseconds": "ms",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "min": "m",
    "mins": "m",
    "minute": "m",
    "minutes": "m",
    "hr": "h",
    "hours": "h",
    "hour": "h",
    "days": "d",
    "day": "d",
}
_SPELT = re.compile(rf"({_NUMBER})\s*([A-Za-z]+)")


def duration(text: str) -> Decimal | None:
    """Return the seconds of ``30s``, ``1m30s``, ``500ms`` or ``PT30S``; None for another text."""
    text = text.strip()
    if _PARTS.fullmatch(text):
        return sum((Decimal(n) * SECONDS_OF[unit] for n, unit in _PART.findall(text)), Decimal(0))
    if (iso := _ISO.fullmatch(text)) and any(iso.groups()):
        units = zip(iso.groups(default="0"), "dhms", strict=True)
        return sum((Decimal(n) * SECONDS_OF[unit] for n, unit in units), Decimal(0))
    return None


def duration_remedy(value: object, example: str = "30s") -> str:
    """Return what to write instead of what is no duration."""
    text = str(value).strip()
    if clock := _CLOCK.fullmatch(text):
        total = int(clock[1]) * 60 + int(clock[2])
        return f"write {int(clock[1])}m{int(clock[2])}s; YAML 1.1 would read {total} here"
    if spelt := _SPELT.fullmatch(text):
        unit = _SPELT_UNITS.get(spelt[2].lower(), spelt[2].lower())
        if unit in SECONDS_OF:
            return f"write {spelt[1]}{unit}"
        return "use one of the units " + ", ".join(SECONDS_OF)
    return _plain_number(text) or f"write it as in {example}"


def read_seconds(value: object) -> float | Misread:
    """Read a duration: ``30s``, ``500ms``, ``PT30S``; a plain number is seconds."""
    if isinstance(value, str):
        seconds = duration(value)
        return Misread(duration_remedy(value)) if seconds is None else float(seconds)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return Misread("write it as in 30s")


def read_fraction(value: object) -> float | Misread:
    """Read a fraction: ``0.5`` or ``50%``."""
    if isinstance(value, str):
        if percent := _PERCENT.fullmatch(value.strip()):
            return float(Decimal(percent[1]) / 100)
        return Misread(_plain_number(value.strip()) or "write it as in 0.5 or 50%")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 1 < value <= 100:  # noqa: PLR2004 - a percent
            return Misread(f"write {value:g}% or {value / 100:g}")
        return float(value)
    return Misread("write it as in 0.5 or 50%")


def read_number(value: object) -> float | Misread:
    """Read a plain number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return Misread(_plain_number(str(value).strip()) or "write a plain number, as in 1.5")


def read_count(value: object) -> int | Misread:
    """Read a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:  # noqa: PLR2004 - exact
        return Misread(f"write {int(value)}")
    return Misread(_plain_number(str(value).strip()) or "write a whole number, as in 5")


_ON, _OFF = {"yes", "on", "y", "true"}, {"no", "off", "n", "false"}


def read_switch(value: object) -> bool | Misread:
    """Read ``true`` or ``false``; ``yes`` and its like are words of YAML 1.1 alone."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _ON or value == 1:
        return Misread("write true")
    if word in _OFF or value == 0:
        return Misread("write false")
    return Misread("write true or false")


def read_word(value: object, words: tuple[str, ...]) -> str | Misread:
    """Read one of a few words."""
    if isinstance(value, str) and value in words:
        return value
    text = value if isinstance(value, str) else ""
    near = nearest(text, words) or nearest(text.lower(), words)
    return Misread(f"did you mean {near}?" if near else f"write one of {', '.join(words)}")


def read_within(
    value: object, rule: Rule, read: Callable[[object], object], *, nullable: bool
) -> object:
    """Read a value, and look whether `rule` accepts what it means; None where `nullable`."""
    if value is None:
        if nullable:
            return None
        return Misread("remove the key to take what it would be otherwise")
    meant = read(value)
    if isinstance(meant, Misread) or rule.fits(meant):
        return meant
    return Misread("write a value that is accepted")


def _plain_number(text: str) -> str:
    """Return what to write for a number in a form that YAML 1.1 would read otherwise; or quoted."""
    if re.fullmatch(r"[-+]?0\d+", text):
        return f"write {int(text)}: with the leading zero it is octal to YAML 1.1"
    if re.fullmatch(r"[-+]?\d[\d_]*_[\d_]*", text):
        return f"write {int(text.replace('_', ''))}"
    if re.fullmatch(r"[-+]?(?:\d{1,15}(?:\.\d+)?|\.\d+)", text):
        return f"write {text} without quotes"
    if re.fullmatch(r"[-+]?\d{1,15},\d+", text):
        return f"write {text.replace(',', '.')}"
    return ""
