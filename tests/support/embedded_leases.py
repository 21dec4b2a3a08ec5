"""Clocks that tests set, and receivers that give no sign of life."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar, cast

from fusewire.brokers.sqlite._jobs import Job
from fusewire.brokers.sqlite._session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fusewire.brokers.sqlite._receivers import Receiver
    from fusewire.brokers.sqlite._store import Claimed, Store

T = TypeVar("T")


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class SetClock:
    """The time of day, as everybody reads it after somebody has set it."""

    def __init__(self) -> None:
        self.step = 0.0

    def __call__(self) -> float:
        return time.time() + self.step


class Silent:
    """A receiver that gives no sign of life: nobody has its session renew the lease."""

    def __init__(self, path: Path, clock: Callable[[], float], lease: float) -> None:
        self.session = Session(str(path), lease, clock)
        self.receiver: Receiver = self.run(lambda store: store.subscribe("orders"))

    def run(self, operation: Callable[[Store], T]) -> T:
        """Run one operation and return its result."""
        job = Job(operation)
        self.session.run([job])
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    def claim(self) -> Claimed:
        """Take one message."""
        [claimed] = self.run(lambda store: store.claim("orders", self.receiver, 1))
        return claimed
