"""Which dependencies a message needs, and in which lane it waits for one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from fusewire._validation import invalid
from fusewire.breaker import CircuitBreaker
from fusewire.brokers import OTHER_LANE
from fusewire.errors import SettingsError
from fusewire.parking._asking import ask
from fusewire.parking._breaker_names import check_breaker_names, check_function, refused_breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aio_pika.abc import AbstractIncomingMessage

logger = logging.getLogger("fusewire.parking")

DependsOn: TypeAlias = (
    "str | Collection[str] | Callable[[AbstractIncomingMessage], str | Collection[str]] | None"
)
"""Names of breakers, or a function that returns them for a message."""


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
        if isinstance(depends_on, CircuitBreaker):  # which can be called, too
            raise refused_breaker("depends_on", depends_on)
        if callable(depends_on):
            check_function("depends_on", depends_on, "a message")
            self._of = depends_on
        else:
            self._always = _names("depends_on", depends_on or ())
        self._lane_of: dict[str, str] = {}
        for lane, members in (lanes or {}).items():
            if isinstance(members, str):
                raise invalid(f"lanes[{lane!r}]", "a list of names of breakers", members)
            for dependency in _names(f"lanes[{lane!r}]", members):
                if dependency in self._lane_of:
                    raise SettingsError(
                        f"lanes must name each breaker once, got {dependency!r} in "
                        f"{self._lane_of[dependency]!r} and in {lane!r}"
                    )
                self._lane_of[dependency] = lane
        if lanes is None:
            self._lane_of = {name: name for name in self._always}
        self._warned_of_lanes = False
        self._warn_of_lanes(self._always)

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
        if self._of is None:
            return self._always
        names = _names("depends_on", ask("depends_on", self._of, message))
        self._warn_of_lanes(names)
        return names

    def _warn_of_lanes(self, names: tuple[str, ...]) -> None:
        strangers = [name for name in names if name not in self._lane_of]
        if strangers and not self._warned_of_lanes:
            self._warned_of_lanes = True
            known = ", ".join(map(repr, self._lane_of)) or "none"
            logger.warning(
                "depends_on names %r, which is in no lane (those in one: %s): its messages wait in "
                "the lane %r with all that is in none; name it in lanes= (this is said once for "
                "each consumer)",
                strangers[0],
                known,
                OTHER_LANE,
            )


def _names(setting: str, given: str | Collection[str]) -> tuple[str, ...]:
    if not isinstance(given, Iterable):  # what a function of the user's gave
        raise invalid(f"what {setting} returns", "names of breakers, or () for none", given)
    names = [given] if isinstance(given, str) else list(given)
    check_breaker_names(setting, names)
    return tuple(dict.fromkeys(names))
