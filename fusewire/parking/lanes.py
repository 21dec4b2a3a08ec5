"""Which dependencies a message needs, and in which lane it waits for one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeAlias

from fusewire.brokers import OTHER_LANE
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aio_pika.abc import AbstractIncomingMessage

DependsOn: TypeAlias = (
    "str | Collection[str] | Callable[[AbstractIncomingMessage], str | Collection[str]] | None"
)
"""Names of breakers, or a function that tells them of a message."""


class Dependencies:
    """What is declared of a consumer's dependencies, fixed when it is made.

    Args:
        depends_on: the breakers that every message needs, or a function of the message.
        lanes: lane name to the dependencies that share it. Without it, every name in `depends_on`
            has a lane of its own. What has none waits in the lane ``other``.

    Raises:
        SettingsError: a name is empty or stands in two lanes.
    """

    def __init__(
        self, depends_on: DependsOn = None, lanes: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._of: Callable[[AbstractIncomingMessage], str | Collection[str]] | None = None
        self._always: tuple[str, ...] = ()
        if callable(depends_on):
            if inspect.iscoroutinefunction(depends_on):
                raise SettingsError("depends_on is a coroutine function: give a plain one")
            self._of = depends_on
        else:
            self._always = _names(depends_on or ())
        self._lane_of: dict[str, str] = {}
        for lane, members in (lanes or {}).items():
            if isinstance(members, str):
                raise SettingsError(f"lanes[{lane!r}]={members!r}: give a list of dependencies")
            for dependency in _names(members):
                if dependency in self._lane_of:
                    raise SettingsError(f"lanes: {dependency!r} stands in two lanes")
                self._lane_of[dependency] = lane
        if lanes is None:
            self._lane_of = {name: name for name in self._always}

    @property
    def lanes(self) -> tuple[str, ...]:
        """Return the names of all lanes, ``other`` last."""
        declared = dict.fromkeys(self._lane_of.values())
        declared.pop(OTHER_LANE, None)
        return (*declared, OTHER_LANE)

    @property
    def always(self) -> tuple[str, ...]:
        """Return what every message needs; nothing where that is a function of the message."""
        return self._always

    def lane(self, dependency: str) -> str:
        """Return the lane in which messages wait for `dependency`."""
        return self._lane_of.get(dependency, OTHER_LANE)

    def members(self, lane: str) -> tuple[str, ...]:
        """Return the dependencies declared for `lane`; none where it takes what is learnt."""
        return tuple(name for name, its_lane in self._lane_of.items() if its_lane == lane)

    def of(self, message: AbstractIncomingMessage) -> tuple[str, ...]:
        """Return the dependencies that `message` is declared to need."""
        return self._always if self._of is None else _names(self._of(message))


def _names(given: str | Collection[str]) -> tuple[str, ...]:
    names: list[object] = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str) or not name:
            raise SettingsError(f"depends_on: {name!r} is not the name of a breaker")
    return tuple(dict.fromkeys(str(name) for name in names))
