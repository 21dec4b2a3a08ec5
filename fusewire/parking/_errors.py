"""What a handler may raise to say what is to become of its message."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fusewire._validation import check_text, invalid
from fusewire.errors import FusewireError, SettingsError

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

_LONGEST = 1e9
"""Seconds that :class:`Retry` may ask for: 31 years, ample, and no header overflows at it."""


class Reject(FusewireError):  # noqa: N818 - an instruction to the consumer, as in other consumers
    """Raised by a handler: the message goes to the dead queue at once, without another attempt.

    Args:
        why: what a person should know, in words.
        reason: one word for tools that sort dead messages; ``rejected`` by default.

    Raises:
        SettingsError: `reason` is no text, is empty, or cannot be stored.
    """

    def __init__(self, why: str, *, reason: str = "rejected") -> None:
        super().__init__(why)
        self.reason = check_text("Reject(reason=…)", reason)


class Retry(FusewireError):  # noqa: N818 - an instruction to the consumer
    """Raised by a handler: the message is to be tried again at a time that the handler names.

    It is not a failed attempt: it counts towards no limit of attempts and says nothing about any
    dependency. What is asked for again and again ends by `max_age` or its own ``not_after`` only.
    The message is handled at the time named, or later by what the queue itself holds up; on
    RabbitMQ, later by up to the shortest of the consumer's delays as well.

    Args:
        why: what a person should know, in words.
        after: seconds from now; 0 means after the shortest of the consumer's delays.
        at: the time, with its time zone; one that is past means the same as 0.

    Raises:
        SettingsError: neither or both of `after` and `at` are given, or it is no such time.
    """

    def __init__(
        self, why: str = "", *, after: float | None = None, at: datetime | None = None
    ) -> None:
        if (after is None) == (at is None):
            raise SettingsError(
                "Retry must be given one of after=, in seconds, and at=, a datetime, got "
                + ("neither" if after is None else "both")
            )
        if after is not None and not 0 <= after <= _LONGEST:
            raise invalid("Retry(after=…)", f"seconds from 0 to {_LONGEST:g}", after)
        if at is not None and at.utcoffset() is None:
            raise invalid("Retry(at=…)", "a datetime with a time zone", at)
        when = f"in {after:g} s" if after is not None else f"at {at}"
        super().__init__(f"{why} (to be tried again {when})".lstrip())
        self.after = after
        self.at = at
        self._why = why

    def __reduce__(self) -> tuple[partial[Self], tuple[str]]:
        return partial(type(self), after=self.after, at=self.at), (self._why,)

    def due_ms(self, now_ms: int) -> int:
        """Return the time named, in milliseconds since 1970, if it is `now_ms` now."""
        if self.at is not None:
            return round(self.at.timestamp() * 1000)
        return now_ms + round((self.after or 0.0) * 1000)


class Requeue(FusewireError):  # noqa: N818 - an instruction to the consumer
    """Raised by a handler that cannot work any more: the message goes back as it came.

    It is not an attempt. All that is in flight goes back with it, in order, and is delivered again.
    """


INSTRUCTIONS = (Reject, Retry, Requeue)
"""They decide, whatever else is known of an attempt, and say nothing about a dependency."""


class HandlerTimeoutError(FusewireError, TimeoutError):
    """A handler did not end within `handler_timeout` and was cancelled: a failed attempt."""


class HandlerNotRunError(FusewireError):
    """A handler returned what shows that it has not run, a generator for one: a failed attempt."""
