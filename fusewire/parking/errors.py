"""What a handler may raise to say what is to become of its message."""

from __future__ import annotations

from fusewire.errors import FusewireError


class Reject(FusewireError):  # noqa: N818 - an instruction to the consumer, as in other consumers
    """Raised by a handler: the message goes to the dead queue at once, without another attempt.

    Args:
        why: what a person should know, in words.
        reason: one word for tools that sort dead messages; ``rejected`` by default.
    """

    def __init__(self, why: str, *, reason: str = "rejected") -> None:
        super().__init__(why)
        self.reason = reason


class HandBack(FusewireError):  # noqa: N818 - an instruction to the consumer
    """Raised by a handler that cannot work any more: the message goes back as it came.

    It is no attempt. All that is in hand goes back with it, in order, and is delivered again.
    """
