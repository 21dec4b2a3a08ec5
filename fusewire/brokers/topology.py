"""The queues that belong to one source queue, and their names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote

from fusewire._validation import DELAYS, check, check_text, invalid

OTHER_LANE = "other"
"""The lane for dependencies that no other lane was declared for."""

LONE = "lone"
"""What follows the source's name in those of marks; see :meth:`Topology.lone`."""

DELAY_TIERS = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds that a message waits after its first, second, … failed attempt."""

_MAX_NAME = 255  # bytes; AMQP 0-9-1's limit of a short string
_DIGEST = 16  # hexadecimal digits: 64 bits, ample to keep a few hundred names apart


@dataclass(frozen=True, slots=True)
class Topology:
    """The queues of one source queue: ``q.parked.<lane>``, ``q.delay.<ms>`` and ``q.dead``.

    Attributes:
        source: the queue that is consumed, ``q``. It is the user's: never declared or changed.
        lanes: names of the parking lanes; ``other`` is always one of them.
        delay_tiers: seconds of each delay queue, growing.
        exchange: the direct exchange that messages reach these queues through, each bound to it by
            its own name; empty for RabbitMQ's default exchange, whose write permission is one on
            every queue. Brokers that have no exchanges ignore it.
        single: whether each lane has one active consumer at a time, however many replicas there
            are. A queue that was made with it keeps it.

    Raises:
        SettingsError: a name is empty or too long, or the tiers are not positive and growing.
    """

    source: str
    lanes: tuple[str, ...] = (OTHER_LANE,)
    delay_tiers: tuple[float, ...] = DELAY_TIERS
    exchange: str = ""
    single: bool = False

    def __post_init__(self) -> None:
        check_text("queue", self.source)
        for lane in self.lanes:
            check_text("each name in lanes", lane)
        if self.exchange:
            check_text("exchange", self.exchange)
        if OTHER_LANE not in self.lanes:
            object.__setattr__(self, "lanes", (*self.lanes, OTHER_LANE))
        if len(self.exchange.encode()) > _MAX_NAME:
            raise invalid("exchange", f"at most {_MAX_NAME} bytes long", self.exchange)
        tiers = self.delay_tiers
        check("delay_tiers", tiers, DELAYS)

    @property
    def dead(self) -> str:
        """The queue of messages that a person has to decide on."""
        return self._derive("dead")

    def parked(self, lane: str) -> str:
        """Return the parking queue of `lane`."""
        return self._derive(f"parked.{lane}")

    def delay(self, tier: float) -> str:
        """Return the delay queue of a tier, in seconds."""
        return self._derive(f"delay.{milliseconds(tier)}")

    def lone(self, operation_id: str, number: int) -> str:
        """Return the queue that marks that a message's handler was called by itself."""
        digest = hashlib.sha256(operation_id.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
        return self._derive(f"{LONE}.{digest}.{number}")

    @property
    def derived(self) -> tuple[str, ...]:
        """Return the names of all queues but the source."""
        return (
            *(self.parked(lane) for lane in self.lanes),
            *(self.delay(tier) for tier in self.delay_tiers),
            self.dead,
        )

    def _derive(self, suffix: str) -> str:
        name = f"{self.source}.{_encode(suffix)}"
        if len(name.encode()) <= _MAX_NAME:
            return name
        # Too long for AMQP: keep a readable head, and tell names apart by a digest of the whole.
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        head = name.encode()[: _MAX_NAME - _DIGEST - 1].decode(errors="ignore")
        return f"{head}.{digest}"


def _encode(text: str) -> str:
    """Percent-encode `text`, with ``#`` for ``%``, which pamqp's names of queues may not have."""
    return quote(text, safe="._-/").replace("%", "#")


def milliseconds(tier: float) -> int:
    """Return a tier's seconds in the whole milliseconds that brokers count in."""
    return round(tier * 1000)
