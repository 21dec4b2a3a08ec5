"""Consumers are shown as they stand, from what they know; what is unknown is absent."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.errors import SettingsError
from fusewire.parking import (
    ConsumerStatus,
    Depth,
    LaneStatus,
    MessageEvent,
    MessageOutcome,
    ReplayFailure,
    ReplayFigures,
)
from fusewire.telemetry.prometheus import Exporter, export
from tests.support.scraping import Scrape, scrape

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from fusewire.breaker import BreakerRegistry

NOW = 1_800_000_000.0
UNKNOWN = LaneStatus(
    subscribed=False,
    in_flight=0,
    ready=None,
    head_parked_at=None,
    empty_at=None,
    waits_for=(),
    replays={},
)
FIGURES = ReplayFigures(
    window=2.5,
    gain=0.5,
    slow_share=0.25,
    reference=None,
    taking_part=True,
    replicas=3,
    cuts={ReplayFailure.REFUSED: 4},
    in_flight=2,
)


def status(queue: str = "orders", **changes: Any) -> ConsumerStatus:
    return replace(
        ConsumerStatus(
            queue=queue,
            at=NOW,
            running=True,
            connected=True,
            connection_changed_at=NOW - 60,
            subscribed=True,
            last_delivery_at=None,
            in_flight=0,
            paused_by=None,
            loop_turned_at=NOW,
            ready=None,
            delayed=None,
            dead=None,
            lanes={"payments": UNKNOWN},
        ),
        **changes,
    )


class FakeConsumer:
    def __init__(self, **changes: Any) -> None:
        self.now = status(**changes)
        self.listeners: list[Callable[[MessageEvent], None]] = []

    def status(self) -> ConsumerStatus:
        return self.now

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def settle(self, outcome: MessageOutcome, **changes: Any) -> None:
        event = replace(MessageEvent(outcome, "op-1", "orders"), **changes)
        for listener in self.listeners:
            listener(event)

    def lane(self, **changes: Any) -> None:
        self.now = replace(self.now, lanes={"payments": replace(UNKNOWN, **changes)})


@pytest.fixture
def exporter(circuits: BreakerRegistry, to: CollectorRegistry) -> Exporter:
    return export(circuits, to=to)


def of(exporter: Exporter, *consumers: FakeConsumer) -> None:
    for consumer in consumers:
        exporter.watch(consumer)  # type: ignore[arg-type] # as much of one as is needed


def lane(shown: Scrape, name: str) -> float | None:
    return shown(f"fusewire_lane_{name}", queue="orders", lane="payments")


def test_what_is_unknown_is_absent(exporter: Exporter, to: CollectorRegistry) -> None:
    of(exporter, FakeConsumer(connected=False, subscribed=False))
    shown = scrape(to)
    assert shown("fusewire_broker_connected", queue="orders") == 0
    assert shown("fusewire_consumer_subscribed", queue="orders") == 0
    assert lane(shown, "in_flight_messages") == 0
    assert not shown.names() & {
        "fusewire_queue_ready_messages",
        "fusewire_delayed_messages",
        "fusewire_dead_messages",
        "fusewire_lane_ready_messages",
        "fusewire_lane_head_age_seconds",
        "fusewire_lane_nonempty_seconds",
    }


def test_what_is_known_is_shown(exporter: Exporter, to: CollectorRegistry) -> None:
    consumer = FakeConsumer(
        in_flight=7, ready=Depth(5, NOW), delayed=Depth(2, NOW), dead=Depth(1, NOW)
    )
    consumer.lane(
        ready=Depth(4, NOW),
        in_flight=6,
        head_parked_at=NOW - 90,
        empty_at=NOW - 100,
        waits_for=("payments",),
    )
    of(exporter, consumer)
    shown = scrape(to)
    assert shown("fusewire_broker_connected", queue="orders") == 1
    assert shown("fusewire_consumer_subscribed", queue="orders") == 1
    assert shown("fusewire_consumer_paused", queue="orders") == 0
    assert shown("fusewire_queue_ready_messages", queue="orders") == 5
    assert shown("fusewire_queue_in_flight_messages", queue="orders") == 7
    assert shown("fusewire_delayed_messages", queue="orders") == 2
    assert shown("fusewire_dead_messages", queue="orders") == 1
    assert lane(shown, "ready_messages") == 4
    assert lane(shown, "in_flight_messages") == 6
    assert lane(shown, "blocked") == 1
    assert lane(shown, "head_age_seconds") == 90
    assert lane(shown, "nonempty_seconds") == 100


def test_an_empty_lane_has_been_nonempty_for_no_time(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    consumer = FakeConsumer()
    consumer.lane(ready=Depth(0, NOW - 3), empty_at=NOW - 3)
    of(exporter, consumer)
    assert lane(scrape(to), "nonempty_seconds") == 0


def test_a_lane_whose_messages_are_in_flight_is_not_empty(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    consumer = FakeConsumer()
    consumer.lane(ready=Depth(0, NOW), in_flight=6, empty_at=NOW - 60)
    of(exporter, consumer)
    assert lane(scrape(to), "nonempty_seconds") == 60


def test_a_consumer_that_pauses(exporter: Exporter, to: CollectorRegistry) -> None:
    of(exporter, FakeConsumer(paused_by="payments"))
    assert scrape(to)("fusewire_consumer_paused", queue="orders") == 1


def test_a_store_of_calls_that_forwards_nothing_is_no_consumer_without_a_subscription(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    of(exporter, FakeConsumer(running=False, subscribed=False))
    shown = scrape(to)
    assert shown("fusewire_broker_connected", queue="orders") == 1
    assert shown("fusewire_consumer_subscribed", queue="orders") is None


def test_consumers_of_one_queue_are_shown_as_one(exporter: Exporter, to: CollectorRegistry) -> None:
    one = FakeConsumer(in_flight=2, ready=Depth(5, NOW))
    other = FakeConsumer(in_flight=3, ready=Depth(4, NOW), connected=False)
    of(exporter, one, other)
    one.settle(MessageOutcome.HANDLED)
    other.settle(MessageOutcome.HANDLED)
    shown = scrape(to)
    assert shown("fusewire_queue_in_flight_messages", queue="orders") == 5
    assert shown("fusewire_queue_ready_messages", queue="orders") == 5
    assert shown("fusewire_broker_connected", queue="orders") == 0
    assert handled(shown) == 2


def handled(shown: Scrape) -> float | None:
    return shown("fusewire_messages_total", queue="orders", lane="", event="handled", reason="")


def test_a_consumer_that_is_watched_no_more(exporter: Exporter, to: CollectorRegistry) -> None:
    consumer = FakeConsumer()
    end = exporter.watch(consumer)  # type: ignore[arg-type] # as much of one as is needed
    consumer.settle(MessageOutcome.HANDLED)
    end()
    consumer.settle(MessageOutcome.HANDLED)
    shown = scrape(to)
    assert shown("fusewire_broker_connected", queue="orders") is None
    assert handled(shown) == 1
    assert consumer.listeners == []


def test_the_replay_controllers_figures(
    exporter: Exporter, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    circuits.get("payments")
    consumer = FakeConsumer()
    consumer.lane(replays={"payments": FIGURES, "": replace(FIGURES, reference=0.2)})
    of(exporter, consumer)
    shown = scrape(to)
    labels = {"queue": "orders", "lane": "payments", "circuit_name": "payments"}
    assert shown("fusewire_replay_window", **labels) == 2.5
    assert shown("fusewire_replay_in_flight", **labels) == 2
    assert shown("fusewire_replay_gain", **labels) == 0.5
    assert shown("fusewire_replay_slow_ratio", **labels) == 0.25
    assert shown("fusewire_replay_taking_part", **labels) == 1
    assert shown("fusewire_replay_replicas", **labels) == 3
    assert shown("fusewire_replay_cuts_total", **labels, cause="refused") == 4
    assert shown("fusewire_replay_reference_seconds", **labels) is None
    labels["circuit_name"] = ""
    assert shown("fusewire_replay_reference_seconds", **labels) == 0.2


def cuts(shown: Scrape) -> dict[tuple[str, ...], float]:
    return shown.named("fusewire_replay_cuts_total", "lane", "queue", "cause")


def test_cuts_are_counted_on_when_a_replay_or_a_consumer_is_gone(
    exporter: Exporter, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    circuits.get("payments")
    consumer, other = FakeConsumer(), FakeConsumer()
    end = exporter.watch(consumer)  # type: ignore[arg-type] # as much of one as is needed
    of(exporter, other)
    for each in (consumer, other):
        each.lane(replays={"payments": FIGURES})
    assert cuts(scrape(to)) == {("payments",): 8}
    consumer.lane(replays={})  # its lane is empty
    assert cuts(scrape(to)) == {("payments",): 8}
    consumer.lane(replays={"payments": replace(FIGURES, cuts={ReplayFailure.REFUSED: 1})})
    assert cuts(scrape(to)) == {("payments",): 9}
    consumer.lane(replays={"payments": replace(FIGURES, cuts={ReplayFailure.REFUSED: 3})})
    end()
    assert cuts(scrape(to)) == {("payments",): 11}
    end()
    assert cuts(scrape(to)) == {("payments",): 11}


def test_redeliveries_and_refused_moves_are_counted_over_all_consumers_of_a_queue(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    def moves(shown: Scrape) -> dict[tuple[str, ...], float]:
        return shown.named("fusewire_moves_refused_total", "queue")

    consumer = FakeConsumer(moves_refused={"refused": 0, "unconfirmed": 0})
    of(exporter, consumer)
    shown = scrape(to)
    assert shown("fusewire_redelivered_total", queue="orders") == 0
    assert moves(shown) == {("refused",): 0, ("unconfirmed",): 0}
    other = FakeConsumer(redelivered=1, moves_refused={"refused": 2})
    end = exporter.watch(other)  # type: ignore[arg-type] # as much of one as is needed
    consumer.now = replace(consumer.now, redelivered=2, moves_refused={"refused": 1})
    end()
    shown = scrape(to)
    assert shown("fusewire_redelivered_total", queue="orders") == 3
    assert moves(shown) == {("refused",): 3, ("unconfirmed",): 0}


def test_cuts_of_a_circuit_that_the_registry_removes_are_forgotten(
    exporter: Exporter, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    circuits.get("payments")
    consumer = FakeConsumer()
    of(exporter, consumer)
    consumer.lane(replays={"payments": FIGURES, "": FIGURES})
    assert cuts(scrape(to)) == {("payments",): 4, ("",): 4}
    circuits.remove("payments")
    consumer.lane(replays={"": FIGURES})
    assert cuts(scrape(to)) == {("",): 4}


def test_a_consumer_is_watched_once(exporter: Exporter, to: CollectorRegistry) -> None:
    consumer = FakeConsumer(in_flight=2)
    end = exporter.watch(consumer)  # type: ignore[arg-type] # as much of one as is needed
    with pytest.raises(SettingsError, match="watched already"):
        of(exporter, consumer)
    consumer.settle(MessageOutcome.HANDLED)
    shown = scrape(to)
    assert shown("fusewire_queue_in_flight_messages", queue="orders") == 2
    assert handled(shown) == 1
    end()
    of(exporter, consumer)
    consumer.settle(MessageOutcome.HANDLED)
    assert handled(scrape(to)) == 2


def test_a_closed_exporter_lets_go_of_consumers(exporter: Exporter) -> None:
    consumer, other = FakeConsumer(), FakeConsumer()
    end = exporter.watch(consumer)  # type: ignore[arg-type] # as much of one as is needed
    of(exporter, other)
    end()
    exporter.close()
    assert consumer.listeners == other.listeners == []
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_replays_of_circuits_without_series_of_their_own_are_combined(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    exporter = export(circuits, to=to, max_circuits=1)
    consumer = FakeConsumer()
    for name in "abc":
        circuits.get(name)
    consumer.lane(replays=dict.fromkeys("abc", FIGURES))
    of(exporter, consumer)
    shown = scrape(to)
    windows = shown.named("fusewire_replay_window", "lane", "queue")
    assert windows == {("a",): 2.5, ("_other",): 5}


def test_the_usual_counts_are_there_before_the_first_message(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    of(exporter, FakeConsumer())
    shown = scrape(to)
    assert handled(shown) == 0
    counts = shown.named("fusewire_messages_total", "queue")
    assert counts["parked", "payments", "circuit_open"] == 0
    assert counts["replayed", "payments", "circuit_open"] == 0
    assert set(counts.values()) == {0}
    labels = {"queue": "orders", "lane": "payments"}
    assert shown("fusewire_parked_seconds_count", **labels) == 0


def test_messages_are_counted_by_what_happened_to_them(
    exporter: Exporter, to: CollectorRegistry
) -> None:
    consumer = FakeConsumer()
    of(exporter, consumer)
    consumer.settle(MessageOutcome.PARKED, lane="payments", reason="circuit_open")
    consumer.settle(
        MessageOutcome.REPLAYED,
        lane="payments",
        reason="circuit_open",
        first_parked_at=NOW - 45,
        ended_at=NOW,
    )
    consumer.settle(MessageOutcome.DEAD, reason="exhausted", queue="of another message")
    shown = scrape(to)
    counts = {k: v for k, v in shown.named("fusewire_messages_total").items() if v}
    assert counts == {
        ("parked", "payments", "orders", "circuit_open"): 1,
        ("replayed", "payments", "orders", "circuit_open"): 1,
        ("dead", "", "orders", "exhausted"): 1,
    }
    labels = {"queue": "orders", "lane": "payments"}
    assert shown("fusewire_parked_seconds_sum", **labels) == 45
    assert shown("fusewire_parked_seconds_bucket", **labels, le="30.0") == 0
    assert shown("fusewire_parked_seconds_bucket", **labels, le="60.0") == 1


def test_reasons_are_bounded(exporter: Exporter, to: CollectorRegistry) -> None:
    consumer = FakeConsumer()
    of(exporter, consumer)
    for number in range(100):
        consumer.settle(MessageOutcome.DEAD, reason=f"reason-{number}")
    consumer.settle(MessageOutcome.DEAD, reason="malformed")
    consumer.settle(MessageOutcome.DEAD, reason="reason-0")
    consumer.settle(MessageOutcome.DEAD, reason="\ud800")
    dead = {
        labels["reason"]: value
        for name, labels, value in scrape(to)
        if name == "fusewire_messages_total" and labels["event"] == "dead" and value
    }
    assert dead == {
        "reason-0": 2,
        **{f"reason-{number}": 1 for number in range(1, 20)},
        "malformed": 1,
        "other": 81,
    }


def test_what_is_no_consumer_is_refused(exporter: Exporter) -> None:
    with pytest.raises(ValueError, match="watched must be a ParkingConsumer"):
        exporter.watch("orders")  # type: ignore[arg-type] # the mistake
