"""The simulation is what it says: servers, deadlines, circuits, and how runs are summed up."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from tests.parking.recovery.cells import _worst_of
from tests.parking.recovery.circuit import FAILURES, OPEN_FOR, PROBES, SPREAD, Circuit
from tests.parking.recovery.clients import LiveTraffic
from tests.parking.recovery.events import Events
from tests.parking.recovery.server import (
    DISTRIBUTIONS,
    REFUSAL,
    Call,
    CollapsingServer,
    Deadlines,
    End,
    Gate,
    Server,
)


class Caller:
    """Notes when and how its calls end."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self.ends: list[tuple[float, End]] = []

    def ended(self, call: Call, end: End) -> None:
        self.ends.append((round(self._events.now, 6), end))

    def call(self) -> Call:
        return Call(self, self._events.now, 0, is_replay=False)


def server_of(kind: type[Server], events: Events, limit: int = 4) -> Server:
    """Return a server of two calls at a time that take a second each."""
    return kind(events, capacity=2.0, at_a_time=2, queue_limit=limit, draw=lambda: 1.0)


def never() -> bool:
    return False


def test_a_server_works_on_some_calls_at_a_time_in_order_and_refuses_beyond_its_limit() -> None:
    events = Events(0.0)
    server, caller = server_of(Server, events), Caller(events)
    for _ in range(7):
        server.send(caller.call())
    events.run(60.0, never)
    assert server.most_queued == 4
    assert caller.ends == [
        (REFUSAL, End.REFUSED),
        *[(float(second), End.OK) for second in (1, 1, 2, 2, 3, 3)],
    ]


def test_a_collapsing_server_takes_everything_and_is_up_to_four_times_slower() -> None:
    events = Events(0.0)
    server, caller = server_of(CollapsingServer, events), Caller(events)
    for _ in range(100):
        server.send(caller.call())
    events.run(10.0, never)
    done = len(caller.ends)
    assert done == 2 + 2 * 2  # after the first ones, a call takes four seconds
    events.run(1000.0, never)
    assert [end for _, end in caller.ends] == [End.OK] * 100


def test_a_gate_refuses_what_is_above_its_capacity_and_is_never_slow() -> None:
    events = Events(0.0)
    gate = Gate(events, capacity=100.0, at_a_time=1, queue_limit=1, draw=lambda: 1.0)
    caller = Caller(events)
    for number in range(2000):  # 200 a second
        events.at(number / 200, lambda _: gate.send(caller.call()))
    events.run(60.0, never)
    ok = sum(end is End.OK for _, end in caller.ends)
    assert ok == pytest.approx(1000, abs=6)


def test_a_server_that_is_down_fails_what_it_has_and_what_comes() -> None:
    events = Events(0.0)
    server, caller = server_of(Server, events), Caller(events)
    for _ in range(3):
        server.send(caller.call())
    server.fail()
    server.send(caller.call())
    events.run(60.0, never)
    assert [end for _, end in caller.ends] == [End.REFUSED] * 4


def test_a_call_ends_at_its_deadline_and_the_server_works_on_for_nobody() -> None:
    events = Events(0.0)
    server, caller = server_of(CollapsingServer, events), Caller(events)
    deadlines = Deadlines(events, 1.5)
    for _ in range(4):
        call = caller.call()
        deadlines.add(call)
        server.send(call)
    events.run(1.9, never)
    late = caller.call()
    server.send(late)
    events.run(60.0, never)
    assert caller.ends == [(1.0, End.OK)] * 2 + [(1.5, End.LATE)] * 2 + [(3.0, End.OK)]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_service_times_have_a_mean_of_one(name: str) -> None:
    draw = DISTRIBUTIONS[name](random.Random(1))
    assert sum(draw() for _ in range(200_000)) / 200_000 == pytest.approx(1, rel=0.02)


def test_calls_wait_for_as_long_as_queueing_theory_says() -> None:
    """One server at a time, two thirds busy: they take three service times on average (M/M/1)."""
    events, rng = Events(0.0), random.Random(1)
    server = Server(
        events,
        capacity=300.0,
        at_a_time=1,
        queue_limit=10_000,
        draw=DISTRIBUTIONS["exp"](rng),
    )
    live = LiveTraffic(events, rng, server, Deadlines(events, 60.0), rate=200.0)
    live.begin()
    events.run(600.0, never)
    assert sum(live.durations) / len(live.durations) == pytest.approx(3 / 300, rel=0.05)
    assert live.made / 600 == pytest.approx(200, rel=0.02)


def test_a_circuit_opens_by_failures_in_a_row_and_closes_by_probes() -> None:
    events = Events(0.0)
    circuit = Circuit(events, random.Random(1))
    for ok in (False, True):
        for _ in range(FAILURES - 1):
            assert not circuit.settle(circuit.admit(), ok=ok)
    for number in range(FAILURES):
        assert circuit.settle(circuit.admit(), ok=False) == (number == FAILURES - 1)
    assert OPEN_FOR <= circuit.wait() <= OPEN_FOR + SPREAD
    events.run(OPEN_FOR + SPREAD, never)
    probes = [circuit.admit() for _ in range(PROBES) if circuit.wait() == 0]
    assert len(probes) == PROBES
    assert circuit.wait() == float("inf")
    for probe in probes:
        circuit.settle(probe, ok=True)
    assert circuit.wait() == 0
    assert circuit.opens == 1


def test_a_failed_probe_opens_a_circuit_and_results_of_before_do_not_count() -> None:
    events = Events(0.0)
    circuit = Circuit(events, random.Random(1))
    before = circuit.admit()
    circuit.open(0.0)
    events.run(SPREAD, never)
    assert not circuit.settle(before, ok=False)
    assert circuit.wait() == 0
    assert circuit.settle(circuit.admit(), ok=False)
    assert circuit.wait() > 29


@pytest.mark.parametrize("few", [1, 2, 3, 5])
def test_the_worst_of_a_few_runs_is_the_mean_over_all_choices_of_them(few: int) -> None:
    values = [0.3, 0.1, 0.7, 0.2, 0.2]
    worst = [max(choice) for choice in combinations(values, few)]
    assert _worst_of(few, values) == pytest.approx(sum(worst) / len(worst))
    assert _worst_of(9, values) == pytest.approx(0.7)
