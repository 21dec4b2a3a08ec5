"""What an audit finds about existing queues."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    LOSS = "loss"
    """Messages can be lost or go astray."""

    WARNING = "warning"
    """Something does not work as intended, but loses no message."""

    UNCHECKED = "not checked"
    """The audit could not check something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is, or may be, wrong.

    Attributes:
        severity: how much it matters.
        subject: the queue or exchange, or what was not checked.
        what: what was found.
        why: why it matters.
        remedy: what to do; commands are on lines of their own.
    """

    severity: Severity
    subject: str
    what: str
    why: str
    remedy: str
