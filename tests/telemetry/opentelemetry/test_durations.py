"""Histograms: what is counted between two collections is recorded at the second one."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider

from fusewire.breaker import BreakerRegistry, Histogram
from fusewire.telemetry._source import Source
from fusewire.telemetry.opentelemetry import _recording, instrument
from fusewire.telemetry.opentelemetry._recording import Recorder, spread
from fusewire.testing import FakeClock
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from fusewire.breaker import CircuitBreaker
    from fusewire.telemetry._metrics import Readings

BOUNDS = (0.001, 0.01, 0.1, 1.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(clock: FakeClock) -> BreakerRegistry:
    registry = BreakerRegistry(clock=clock)
    registry.measure_durations()
    return registry


@pytest.fixture
def meters(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def call(breaker: CircuitBreaker, clock: FakeClock, seconds: float, *, well: bool = True) -> None:
    permit = breaker.acquire()
    clock.advance(seconds)
    if well:
        permit.success()
    else:
        permit.failure()


def durations(reader: InMemoryMetricReader) -> dict[tuple[Any, ...], Any]:
    """Return the points of calls' durations, by circuit and result."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        tuple((point.attributes or {}).values()): point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "circuit_breaker.call_duration"
        for point in metric.data.data_points
    }


def test_the_durations_of_chosen_circuits_are_a_histogram(
    timed: BreakerRegistry, clock: FakeClock, meters: MeterProvider, reader: InMemoryMetricReader
) -> None:
    payments, mail = timed.get("payments"), timed.get("mail")
    call(payments, clock, 3.0)  # before anybody asked
    with instrument(timed, meter_provider=meters, durations=["pay*"]):
        for seconds in (0.002, 0.2, 0.2, 30.0):
            call(payments, clock, seconds)
        call(payments, clock, 0.5, well=False)
        call(mail, clock, 1.0)
        assert durations(reader).keys() == {("payments", "success"), ("payments", "failure")}
        call(payments, clock, 0.2)
        found = durations(reader)
    answered = found["payments", "success"]
    assert answered.count == 5
    assert answered.sum == pytest.approx(30.602)
    totals = payments.figures().durations
    assert totals is not None
    assert answered.explicit_bounds == totals.answered.bounds
    before = [0] * len(answered.bucket_counts)
    before[bisect_left(answered.explicit_bounds, 3.0)] = 1
    assert [a + b for a, b in zip(answered.bucket_counts, before, strict=True)] == list(
        totals.answered.counts
    )
    assert (found["payments", "failure"].count, found["payments", "failure"].sum) == (1, 0.5)


def test_nothing_is_recorded_unless_it_is_asked_for(
    timed: BreakerRegistry, clock: FakeClock, meters: MeterProvider, reader: InMemoryMetricReader
) -> None:
    with instrument(timed, meter_provider=meters):
        call(timed.get("payments"), clock, 0.2)
        assert durations(reader) == {}


def test_what_one_collection_does_not_record_a_thread_does(
    timed: BreakerRegistry,
    clock: FakeClock,
    meters: MeterProvider,
    reader: InMemoryMetricReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_recording, "_LONGEST", 0.0)
    recorders: list[Recorder] = []

    def start(self: Recorder) -> None:  # the test is its thread
        recorders.append(self)

    monkeypatch.setattr(Recorder, "start", start)
    breaker = timed.get("payments")
    with instrument(timed, meter_provider=meters, durations=["*"]):
        for seconds in (0.002, 0.002, 0.2, 0.2, 0.2, 3.0, 3.0, 3.0):
            call(breaker, clock, seconds)
        assert durations(reader) == {}
        recorders[0].work()
        found = durations(reader)["payments", "success"]
        assert found.count == 8
        assert found.sum == pytest.approx(9.604)
        call(breaker, clock, 0.2)
        monkeypatch.setattr(_recording, "_LONGEST", 30.0)
    assert durations(reader)["payments", "success"].count == 9, "the end is a collection too"


def test_a_thread_records_while_nobody_collects(
    timed: BreakerRegistry,
    clock: FakeClock,
    meters: MeterProvider,
    reader: InMemoryMetricReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_recording, "_LONGEST", 0.0)
    monkeypatch.setattr(_recording, "_INTERVAL", 0.01)
    monkeypatch.setattr(_recording, "_SLICE", 2)
    breaker = timed.get("payments")
    with instrument(timed, meter_provider=meters, durations=["*"]):
        for _ in range(7):
            call(breaker, clock, 0.2)
        until_sync(
            lambda: (
                ("payments", "success") in (found := durations(reader))
                and found["payments", "success"].count == 7
            )
        )


def test_a_thread_that_cannot_read_tries_again(
    timed: BreakerRegistry,
    meters: MeterProvider,
    reader: InMemoryMetricReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_recording, "_LONGEST", 0.0)
    monkeypatch.setattr(_recording, "_INTERVAL", 0.01)
    read, fails = Source.read_circuits, iter((True,))

    def fail_once(self: Source) -> Readings:
        if next(fails, False):
            raise OSError("of the operating system")
        return read(self)

    monkeypatch.setattr(Source, "read_circuits", fail_once)
    with instrument(timed, meter_provider=meters, durations=["*"]):
        timed.get("payments").acquire().success()
        until_sync(lambda: ("payments", "success") in durations(reader))
    assert caplog.messages == ["durations could not be recorded; they are tried again"]


def test_what_is_left_at_the_end_is_said(
    timed: BreakerRegistry,
    clock: FakeClock,
    meters: MeterProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_recording, "_LONGEST", 0.0)
    with instrument(timed, meter_provider=meters, durations=["*"]):
        for _ in range(5):
            call(timed.get("payments"), clock, 0.2)
    assert caplog.messages == ["5 durations are not recorded: there were too many at the end"]


def test_what_a_snapshot_brings_along_is_not_recorded(
    timed: BreakerRegistry, clock: FakeClock, meters: MeterProvider, reader: InMemoryMetricReader
) -> None:
    former, breaker = BreakerRegistry(clock=clock).get("payments"), timed.get("payments")
    former.measure_durations()
    for _ in range(4):
        call(former, clock, 0.2)
    call(former, clock, 0.2, well=False)
    with instrument(timed, meter_provider=meters, durations=["*"]):
        breaker.restore(former.snapshot())
        assert durations(reader) == {}
        call(breaker, clock, 0.3)
        point = durations(reader)["payments", "success"]
        assert (point.count, point.sum) == (1, pytest.approx(0.3))
    totals = breaker.figures().durations
    assert totals is not None
    assert totals.answered.calls == 5
    assert totals.restored is not None
    assert (totals.restored.answered.calls, totals.restored.failed.calls) == (4, 1)


@given(st.lists(st.floats(0.0, 5.0), max_size=50))
def test_what_is_recorded_falls_into_the_same_buckets_and_is_as_long_together(
    taken: list[float],
) -> None:
    counts = [0] * (len(BOUNDS) + 1)
    for seconds in taken:
        counts[bisect_left(BOUNDS, seconds)] += 1
    recorded = list(spread(Histogram(BOUNDS, tuple(counts), sum(taken))))
    again = [0] * (len(BOUNDS) + 1)
    for seconds, calls in recorded:
        again[bisect_left(BOUNDS, seconds)] += calls
    assert again == counts
    together = sum(seconds * calls for seconds, calls in recorded)
    assert together == pytest.approx(sum(taken), rel=1e-4, abs=1e-4)
