"""Replays that wait to begin, in the order of their lane."""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from operator import attrgetter
from typing import Self


class Notice:
    """Wakes those that wait for a change. Cheaper than an event and a timeout."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, seconds: float = math.inf) -> None:
        """Wait until :meth:`notify` is called, for `seconds` at most."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        self._waiting.append(woken)
        timer = None if seconds == math.inf else loop.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            if timer is not None:
                timer.cancel()
            if woken in self._waiting:
                self._waiting.remove(woken)

    def notify(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, []
        for woken in waiting:
            _wake(woken)


class Place:
    """The place of one message in a line."""

    __slots__ = ("_line", "notice", "number")

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self.number = number
        self.notice = Notice()

    def __enter__(self) -> Self:
        self._line.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.leave(self)

    @property
    def first(self) -> bool:
        """Whether it is the turn of this one."""
        return self._line.first is self


class Line:
    """Places, by their numbers: ``with line.place(number) as place``.

    A message that was refused stands where it stood before, in front of those that came later.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []

    def __len__(self) -> int:
        return len(self._places)

    @property
    def first(self) -> Place | None:
        """The place with the lowest number."""
        return self._places[0] if self._places else None

    def place(self, number: int) -> Place:
        """Return a place that is taken when it is entered."""
        return Place(self, number)

    def join(self, place: Place) -> None:
        """Take `place`."""
        insort(self._places, place, key=attrgetter("number"))

    def leave(self, place: Place) -> None:
        """Give up `place`, and wake the one that is first now."""
        self._places.remove(place)
        self.wake()

    def wake(self) -> None:
        """Have the first one look again whether it may begin."""
        if self._places:
            self._places[0].notice.notify()

    def wake_all(self) -> None:
        """Have all look again: the consumer stops."""
        for place in self._places.copy():
            place.notice.notify()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
