"""The metrics of consumers and of stores of calls: whether they work, and what waits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from fusewire._locks import make_lock
from fusewire.errors import SettingsError
from fusewire.telemetry._circuits import OTHER
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._messages import METRICS as MESSAGE_METRICS
from fusewire.telemetry._messages import MessageCounts
from fusewire.telemetry._metrics import Combine, Kind, Metric, Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.parking import ConsumerStatus, Depth, LaneStatus, MessageEvent, ReplayFigures
    from fusewire.telemetry._metrics import Labels

_QUEUE = ("queue",)
_LANE = ("queue", "lane")
_REPLAY = ("queue", "lane", "circuit_name")

CONNECTED = Metric(
    "fusewire_broker_connected",
    _QUEUE,
    "Whether the broker answered when it was last asked (0 or 1)",
    combine=Combine.MIN,
)
SUBSCRIBED = Metric(
    "fusewire_consumer_subscribed",
    _QUEUE,
    "Whether the source queue is received from (0 or 1); 0 while a pausing consumer waits",
    combine=Combine.MIN,
)
PAUSED = Metric(
    "fusewire_consumer_paused",
    _QUEUE,
    'Whether a consumer with on_open="pause" waits for a circuit (0 or 1)',
    combine=Combine.MAX,
)
QUEUE_READY = Metric(
    "fusewire_queue_ready_messages",
    _QUEUE,
    "Messages that wait in the source queue, as the broker counts them; absent while unknown",
    combine=Combine.MAX,
)
QUEUE_IN_FLIGHT = Metric(
    "fusewire_queue_in_flight_messages",
    _QUEUE,
    "Messages of the source queue that this process has received and not settled",
)
DELAYED = Metric(
    "fusewire_delayed_messages",
    _QUEUE,
    "Messages that wait for the end of a delay; absent while unknown",
    combine=Combine.MAX,
)
DEAD = Metric(
    "fusewire_dead_messages",
    _QUEUE,
    "Messages that wait for a person; absent while unknown",
    combine=Combine.MAX,
)
LANE_READY = Metric(
    "fusewire_lane_ready_messages",
    _LANE,
    "Messages that wait in a lane, as the broker counts them; absent while unknown",
    combine=Combine.MAX,
)
LANE_IN_FLIGHT = Metric(
    "fusewire_lane_in_flight_messages",
    _LANE,
    "Messages of a lane that this process has received and not settled",
)
LANE_BLOCKED = Metric(
    "fusewire_lane_blocked",
    _LANE,
    "Whether a circuit that is open, or messages that fail alike, keep a lane from being replayed "
    "(0 or 1)",
    combine=Combine.MAX,
)
STUCK = Metric(
    "fusewire_lane_stuck",
    _LANE,
    "Whether calls wait in a lane whose circuits are closed, and nobody has forwarded any for a "
    "minute (0 or 1); looked for where calls are only parked",
    combine=Combine.MAX,
)
HEAD_AGE = Metric(
    "fusewire_lane_head_age_seconds",
    _LANE,
    "Seconds since the message was first parked that was last taken from the head of a lane; "
    "absent until one was",
    combine=Combine.MAX,
)
NONEMPTY = Metric(
    "fusewire_lane_nonempty_seconds",
    _LANE,
    "Seconds since a lane was last seen empty: no message in it waits longer; 0 while it is empty",
    combine=Combine.MAX,
)
WINDOW = Metric(
    "fusewire_replay_window",
    _REPLAY,
    "Replays that this process may have in flight; below 1 they are paced",
)
REPLAYS_IN_FLIGHT = Metric("fusewire_replay_in_flight", _REPLAY, "Replays in flight")
GAIN = Metric(
    "fusewire_replay_gain",
    _REPLAY,
    "Share by which the window grows in a round trip",
    combine=Combine.MAX,
)
SLOW_RATIO = Metric(
    "fusewire_replay_slow_ratio",
    _REPLAY,
    "Share of slow ones among the latest replays",
    combine=Combine.MAX,
)
REFERENCE = Metric(
    "fusewire_replay_reference_seconds",
    _REPLAY,
    "Seconds from which on a replay is slow; absent while unknown",
    combine=Combine.MAX,
)
TAKING_PART = Metric(
    "fusewire_replay_taking_part",
    _REPLAY,
    "Processes that replay",
)
REPLICAS = Metric(
    "fusewire_replay_replicas",
    _REPLAY,
    "Replicas, as this process counted them last",
    combine=Combine.MAX,
)
CUTS = Metric(
    "fusewire_replay_cuts_total",
    (*_REPLAY, "cause"),
    "Cuts of the window, by what caused them",
    Kind.COUNTER,
)

REDELIVERED = Metric(
    "fusewire_redelivered_total",
    _QUEUE,
    "Messages that were received again because they had not been settled: possible duplicates",
    Kind.COUNTER,
)
MOVES_REFUSED = Metric(
    "fusewire_moves_refused_total",
    (*_QUEUE, "reason"),
    "Moves of messages that failed and are tried again, and calls that were not stored, by why",
    Kind.COUNTER,
)

METRICS = (
    *(CONNECTED, SUBSCRIBED, PAUSED, QUEUE_READY, QUEUE_IN_FLIGHT, DELAYED, DEAD),
    *(REDELIVERED, MOVES_REFUSED),
    *(LANE_READY, LANE_IN_FLIGHT, LANE_BLOCKED, STUCK, HEAD_AGE, NONEMPTY),
    *(WINDOW, REPLAYS_IN_FLIGHT, GAIN, SLOW_RATIO, REFERENCE, TAKING_PART, REPLICAS, CUTS),
    *MESSAGE_METRICS,
)


class Consumer(Protocol):
    """What can be watched: a :class:`~fusewire.ParkingConsumer` or :class:`~fusewire.ParkedCalls`.

    Its status must wait for nothing, and be safe to read in any thread.
    """

    def status(self) -> ConsumerStatus:
        """Return how it stands."""

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Have `listener` called for each message, and return what removes it."""


class ConsumersReader:
    """Reads what is known of consumers.

    Args:
        has_own_series: whether a circuit has series of its own.
    """

    def __init__(self, has_own_series: Callable[[str], bool]) -> None:
        self._has_own_series = has_own_series
        self._counts = MessageCounts()
        self._lock = make_lock()
        # What is watched, and what has been read of its own counters.
        self._watched: list[tuple[Consumer, Growth]] = []
        # These counters over all that was ever watched. A consumer's own end with it, or when it
        # forgets a replay, and the sum of several would fall.
        self._totals = Readings()

    def watch(self, consumer: Consumer) -> Callable[[], None]:
        """Read `consumer` too, and return the function that ends it.

        Raises:
            SettingsError: it is read already, and would count twice.
        """
        status, growth = consumer.status(), Growth()
        with self._lock:
            if any(each is consumer for each, _ in self._watched):
                raise SettingsError(f"{consumer!r} is watched already: end that first")
            self._watched.append((consumer, growth))
        self._counts.expect(status.queue, status.lanes)
        forget = consumer.add_listener(partial(self._counts.count, status.queue))

        def end() -> None:
            forget()
            with self._lock:
                if any(each is growth for _, each in self._watched):
                    self._count(consumer.status(), growth)
                    self._watched = [each for each in self._watched if each[1] is not growth]

        return end

    def read(self, readings: Readings) -> None:
        """Add how all consumers stand, and what became of their messages."""
        with self._lock:
            for consumer, growth in self._watched:
                status = consumer.status()
                self._read_status(readings, status)
                self._count(status, growth)
            self._forget_circuits()
            readings.include(self._totals)
        self._counts.read(readings)

    def _count(self, status: ConsumerStatus, growth: Growth) -> None:
        """Count what a consumer has counted since it was read last."""
        queue, add = status.queue, self._totals.add
        add(REDELIVERED, (queue,), growth.of(REDELIVERED, (), status.redelivered))
        for why, count in status.moves_refused.items():
            add(MOVES_REFUSED, (queue, why), growth.of(MOVES_REFUSED, (why,), count))
        for name, lane in status.lanes.items():
            for circuit, figures in lane.replays.items():
                for cause, count in figures.cuts.items():
                    more = growth.of(CUTS, (name, circuit, cause.value), count)
                    add(CUTS, (queue, name, self._shown(circuit), cause.value), more)

    def _forget_circuits(self) -> None:
        """Forget what was counted of circuits that are gone, as their own series are."""
        cuts = self._totals.numbers.get(CUTS, {})
        for labels in [each for each in cuts if self._shown(each[2]) != each[2]]:
            del cuts[labels]

    def _shown(self, circuit: str) -> str:
        """Return what a circuit is called: those without series of their own have one name."""
        return circuit if not circuit or self._has_own_series(circuit) else OTHER

    def _read_status(self, readings: Readings, status: ConsumerStatus) -> None:
        add, queue = readings.add, (status.queue,)
        add(CONNECTED, queue, int(status.connected))
        if status.running:  # a store of calls that forwards nothing subscribes to nothing
            add(SUBSCRIBED, queue, int(status.subscribed))
            add(PAUSED, queue, int(status.paused_by is not None))
            add(QUEUE_IN_FLIGHT, queue, status.in_flight)
        _add_depth(readings, QUEUE_READY, queue, status.ready)
        _add_depth(readings, DELAYED, queue, status.delayed)
        _add_depth(readings, DEAD, queue, status.dead)
        for name, lane in status.lanes.items():
            self._read_lane(readings, (status.queue, name), lane, status.at)

    def _read_lane(self, readings: Readings, labels: Labels, lane: LaneStatus, now: float) -> None:
        _add_depth(readings, LANE_READY, labels, lane.ready)
        readings.add(LANE_IN_FLIGHT, labels, lane.in_flight)
        readings.add(LANE_BLOCKED, labels, int(bool(lane.waits_for)))
        readings.add(STUCK, labels, int(lane.stuck))
        if lane.head_parked_at is not None:
            readings.add(HEAD_AGE, labels, max(now - lane.head_parked_at, 0.0))
        if lane.ready is not None and not (lane.ready.ready or lane.in_flight):
            readings.add(NONEMPTY, labels, 0.0)
        elif lane.empty_at is not None:
            readings.add(NONEMPTY, labels, max(now - lane.empty_at, 0.0))
        for circuit, figures in lane.replays.items():
            _read_replays(readings, (*labels, self._shown(circuit)), figures)


def _add_depth(readings: Readings, metric: Metric, labels: Labels, depth: Depth | None) -> None:
    if depth is not None:
        readings.add(metric, labels, depth.ready)


def _read_replays(readings: Readings, labels: Labels, figures: ReplayFigures) -> None:
    add = readings.add
    add(WINDOW, labels, figures.window)
    add(REPLAYS_IN_FLIGHT, labels, figures.in_flight)
    add(GAIN, labels, figures.gain)
    add(SLOW_RATIO, labels, figures.slow_share)
    if figures.reference is not None:
        add(REFERENCE, labels, figures.reference)
    add(TAKING_PART, labels, int(figures.taking_part))
    add(REPLICAS, labels, figures.replicas)
