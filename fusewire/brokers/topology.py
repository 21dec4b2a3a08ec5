"""The stations of one source queue: where its messages wait."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NoReturn

from fusewire._validation import DELAYS, check, check_text

OTHER_LANE = "other"
"""The lane for dependencies that no other lane was declared for."""

DEFAULT_DELAYS = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds that a message waits after its first, second, … failed attempt."""


class Station(NamedTuple):  # a tuple, because one is made and looked up for every message
    """A place where messages of one source queue wait. :class:`Topology` gives them.

    Attributes:
        queue: the name of the source queue.
        kind: ``"source"``: the queue itself. ``"lane"``: what is parked for a dependency.
            ``"dead"``: what a person decides on. ``"delayed"``: what is on its way to the source
            and waits until its delay is over; it can only be looked at.
        lane: the name of the lane; empty for the other kinds.
    """

    queue: str
    kind: Literal["source", "lane", "dead", "delayed"] = "source"
    lane: str = ""

    @classmethod
    def of(cls, place: Station | str) -> Station:
        """Return `place`; a name means the source queue of that name."""
        return cls(place) if isinstance(place, str) else place

    def __str__(self) -> str:
        """Return the station as people read it: ``orders.parked.payments``, for example."""
        match self.kind:
            case "source":
                return self.queue
            case "lane":
                return f"{self.queue}.parked.{self.lane}"
            case _:
                return f"{self.queue}.{self.kind}"


@dataclass(frozen=True, slots=True)
class Topology:
    """One source queue, and the stations that belong to it.

    Attributes:
        source: the name of the queue that is consumed. It is the user's: never made or changed.
        lanes: names of the parking lanes; ``other`` is always one of them.
        delays: seconds, growing: the delays that every broker keeps. A broker that lacks
            :attr:`Capabilities.any_delay` may end another one early.
        single: whether each lane has one active receiver at a time, however many replicas there
            are. A lane that was made with it keeps it.
        options: what one kind of broker wants to know besides, by name. Others ignore it. RabbitMQ
            knows ``exchange``: the direct exchange through which messages reach the stations, by
            default RabbitMQ's default exchange, whose write permission is one on every queue.

    Raises:
        SettingsError: a name is empty or cannot be stored, or the delays are not positive and
            growing.
    """

    source: str
    lanes: tuple[str, ...] = (OTHER_LANE,)
    delays: tuple[float, ...] = DEFAULT_DELAYS
    single: bool = field(default=False, kw_only=True)
    options: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        check_text("queue", self.source)
        for lane in self.lanes:
            check_text("each name in lanes", lane)
        for option, value in self.options.items():
            if value:
                check_text(option, value)
        if OTHER_LANE not in self.lanes:
            object.__setattr__(self, "lanes", (*self.lanes, OTHER_LANE))
        check("delays", self.delays, DELAYS)

    @property
    def dead(self) -> Station:
        """The station of messages that a person has to decide on."""
        return Station(self.source, "dead")

    @property
    def delayed(self) -> Station:
        """What waits until its delay is over; it can only be looked at."""
        return Station(self.source, "delayed")

    def parked(self, lane: str) -> Station:
        """Return the station of what is parked in `lane`."""
        return Station(self.source, "lane", lane)

    @property
    def stations(self) -> tuple[Station, ...]:
        """All stations that messages are received from or end in: source, lanes, dead."""
        return (Station(self.source), *map(self.parked, self.lanes), self.dead)

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("delay", "derived", "delay_tiers", "exchange", "lone"):
            raise AttributeError(
                f"Topology has no {name!r} any more: the names of RabbitMQ's queues are those of "
                "fusewire.brokers.rabbitmq.Layout(topology)"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def check_delay(to: Station) -> None:
    """Refuse a delay on the way to anything but a source.

    Raises:
        ValueError: `to` is another station.
    """
    if to.kind != "source":
        raise ValueError(f"only a source takes a delay, and {to} is none")


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, as brokers count them."""
    return round(seconds * 1000)
