"""Where the messages of one test lie."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass

from fusewire.brokers import Broker  # noqa: TC001 - see fusewire/_public.py


@dataclass(frozen=True)
class Place:
    """Where messages lie, and how to get at them.

    Attributes:
        open: returns another broker on the same messages, not entered yet, as another process
            would have one. It is called several times in a test.
        queue: the name of a source queue that does not exist yet, and that no other test uses.
    """

    open: Callable[[], Broker]
    queue: str
