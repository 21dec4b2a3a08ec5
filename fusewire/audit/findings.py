"""What an audit finds about queues that exist: is what waits in them safe?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    LOSS = "loss"
    """Messages can be lost or go astray."""

    WARNING = "warning"
    """Something will not work as it is meant to; no message is lost by it."""

    UNCHECKED = "not checked"
    """It could not be seen whether all is well."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not, or may not be, as it should be.

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
