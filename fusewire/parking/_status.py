"""How a consumer stands now, for health checks and metrics: values that wait for nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fusewire.brokers import Station
from fusewire.parking._replay_controller import ReplayFigures  # noqa: TC001 - see _public.py

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Topology
    from fusewire.parking._fault_counts import FaultCounts
    from fusewire.parking._status_watch import StatusWatch


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages waited somewhere, as the broker counted them.

    Attributes:
        ready: messages that wait, without those in flight.
        read_at: when they were counted, in seconds since 1970.
    """

    ready: int
    read_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """How one parking lane stands, as one consumer sees it.

    What waits in a lane is `ready` plus `in_flight` of all consumers: `ready` is the same figure
    in all of them.

    Attributes:
        subscribed: whether this consumer receives from the lane. While all that a lane is for is
            down, nobody does.
        in_flight: messages of the lane that this consumer has received and not settled.
        ready: how many wait in it; None while that is not known.
        head_parked_at: when the message was first parked that this consumer took from the head of
            the lane last; None while it has taken none since the lane was empty.
        empty_at: when this consumer last saw the lane empty, with none of its messages in flight
            here; None if it never did.
        waits_for: the breakers that keep what waits here from being replayed: their circuits are
            open, or their messages fail alike.
        replays: how its replays stand, by breaker; see :meth:`ParkingConsumer.replay_figures`.
        stuck: whether messages wait although their circuits are closed, and their number has not
            fallen for a minute: nobody forwards them, or somebody with other lanes. Only a
            ParkedCalls without a forwarder looks for that.
    """

    subscribed: bool
    in_flight: int
    ready: Depth | None
    head_parked_at: float | None
    empty_at: float | None
    waits_for: tuple[str, ...]
    replays: Mapping[str, ReplayFigures]
    stuck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStatus:
    """How a consumer stands, or a forwarder of stored calls.

    Times are seconds since 1970 by the clock at `at`: subtract them from `at`, and a clock that was
    set meanwhile falsifies no age.

    Attributes:
        queue: the source queue.
        at: when this was read.
        running: whether messages are consumed, or will be when the broker answers.
        connected: whether the broker answered when it was last asked. It is asked at least every
            10 s while the status is asked for.
        connection_changed_at: since when `connected` is what it is.
        subscribed: whether the source queue is received from.
        last_delivery_at: when the last message was received, from any queue; None if none was.
        in_flight: messages of the source queue that were received and are not settled.
        paused_by: the breaker for which a consumer with ``on_open="pause"`` waits; None if it does
            not.
        loop_turned_at: when the consumer's event loop was last seen to turn, which is noted each
            second; None before it runs, and once it has been stopped.
        ready: how many messages wait in the source queue; None while that is not known.
        delayed: how many wait for the end of a delay.
        dead: how many wait for a person.
        lanes: the parking lanes, by name.
        redelivered: messages that were received although the broker had given them out before: a
            process or its connection ended before they were settled, so they may have been handled.
            Counted since this object was made.
        moves_refused: attempts to move a message, or to store a call, that failed and are made
            again, by why: ``refused`` if its target does not exist or is full, ``unavailable`` if
            the broker could not be reached, ``unconfirmed`` if it did not answer. Counted likewise.
        halted: why a forwarder has stopped although calls wait, in words: it cannot read them.
            Empty if it has not. Then a person has to act, and nothing is lost meanwhile.
    """

    queue: str
    at: float
    running: bool
    connected: bool
    connection_changed_at: float
    subscribed: bool
    last_delivery_at: float | None
    in_flight: int
    paused_by: str | None
    loop_turned_at: float | None
    ready: Depth | None
    delayed: Depth | None
    dead: Depth | None
    lanes: Mapping[str, LaneStatus]
    redelivered: int = 0
    moves_refused: Mapping[str, int] = field(default_factory=dict)
    halted: str = ""


class ReceiverState(Protocol):
    """What a status shows of a receiver."""

    @property
    def subscribed(self) -> bool:
        """Whether it receives."""

    @property
    def in_flight(self) -> int:
        """How many messages it has received that are not settled."""

    @property
    def received_at(self) -> float | None:
        """When it received the last one, in monotonic seconds."""


class SourceState(Protocol):
    """What a status shows of the worker on the source queue."""

    @property
    def receiver(self) -> ReceiverState:
        """What messages come through."""

    @property
    def paused_by(self) -> str | None:
        """The breaker that it waits for."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """What a status shows of a lane.

    Attributes:
        receiver: what messages come through; None where nobody replays.
        waits_for: what they wait for.
        replays: how the replays stand.
        stuck: whether nobody seems to replay it.
        head: when the head was first parked in milliseconds since 1970, and when it was taken in
            monotonic seconds.
    """

    receiver: ReceiverState | None
    waits_for: tuple[str, ...]
    replays: Mapping[str, ReplayFigures]
    head: tuple[int, float] | None
    stuck: bool = False


def status_of(
    topology: Topology,
    watch: StatusWatch,
    source: SourceState | None,
    lanes: Callable[[str], LaneState],
    faults: FaultCounts,
    *,
    running: bool,
    monotonic: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> ConsumerStatus:
    """Put a status together. Safe to call from any thread.

    Args:
        topology: the queues.
        watch: what is known of them.
        source: the worker on the source queue; None before there is one.
        lanes: returns how a lane stands.
        faults: what went wrong with the broker.
        running: whether messages are consumed.
        monotonic: the clock of `watch` and the receivers.
        now: the wall clock.
    """
    watch.want()
    at, zero = now(), monotonic()
    states = {name: lanes(name) for name in topology.lanes}
    receivers = [state.receiver for state in states.values() if state.receiver is not None]
    if source is not None:
        receivers.append(source.receiver)
    received = [each.received_at for each in receivers if each.received_at is not None]

    def wall(time: float | None) -> float | None:
        return None if time is None else at - (zero - time)

    def depth(station: Station) -> Depth | None:
        reading = watch.reading(station, zero)
        return None if reading is None else Depth(reading.ready, at - (zero - reading.at))

    def lane(name: str, state: LaneState) -> LaneStatus:
        station = topology.parked(name)
        receiver, empty_at = state.receiver, watch.empty_at(station)
        known = state.head is not None and (empty_at is None or state.head[1] > empty_at)
        return LaneStatus(
            subscribed=receiver is not None and receiver.subscribed,
            in_flight=0 if receiver is None else receiver.in_flight,
            ready=depth(station),
            head_parked_at=state.head[0] / 1000 if state.head is not None and known else None,
            empty_at=wall(empty_at),
            waits_for=state.waits_for,
            replays=state.replays,
            stuck=state.stuck,
        )

    return ConsumerStatus(
        queue=topology.source,
        at=at,
        running=running,
        connected=watch.contact.answers,
        connection_changed_at=at - (zero - watch.contact.since),
        subscribed=source is not None and source.receiver.subscribed,
        last_delivery_at=wall(max(received, default=None)),
        in_flight=0 if source is None else source.receiver.in_flight,
        paused_by=None if source is None else source.paused_by,
        loop_turned_at=wall(watch.turned_at),
        ready=depth(Station(topology.source)),
        delayed=depth(topology.delayed),
        dead=depth(topology.dead),
        lanes={name: lane(name, state) for name, state in states.items()},
        redelivered=faults.redelivered,
        moves_refused=faults.moves_refused,
    )
