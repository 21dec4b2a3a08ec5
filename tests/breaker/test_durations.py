"""Durations: what calls take, and what live calls took while the dependency was well."""

from __future__ import annotations

import random

import pytest

from fusewire.breaker import Baseline, Durations
from fusewire.breaker._histogram import counted
from fusewire.testing import FakeClock


def recorded(clock: FakeClock, *seconds: float) -> Durations:
    durations = Durations(clock)
    for each in seconds:
        durations.record(each)
    return durations


def test_nothing_is_known_before_the_first_call(clock: FakeClock) -> None:
    durations = Durations(clock)
    assert durations.baseline() is None
    assert durations.slow_share() is None
    assert durations.methods() == ()
    assert durations.histogram().calls == 0


def test_the_baseline_is_the_third_quartile_or_a_quarter_more_than_the_mean(
    clock: FakeClock,
) -> None:
    durations = Durations(clock)
    rng = random.Random(7)
    taken = sorted(rng.lognormvariate(-4, 1) for _ in range(1000))
    for each in taken:
        durations.record(each)
    baseline = durations.baseline()
    assert baseline is not None
    mean = sum(min(each, taken[950]) for each in taken) / 1000
    assert baseline.calls == 1000
    assert baseline.typical == pytest.approx(mean, rel=0.05)
    assert baseline.reference == pytest.approx(max(taken[750], 1.25 * mean), rel=0.05)


def test_the_third_quartile_counts_if_it_is_greater(clock: FakeClock) -> None:
    baseline = recorded(clock, *[0.01] * 60, *[0.1] * 40).baseline()
    assert baseline is not None
    assert baseline.typical == pytest.approx(0.046, rel=0.1)
    assert baseline.reference == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("seconds", [1e-6, 0.0001, 0.016, 2.0, 600.0])
def test_the_reference_is_above_calls_that_are_all_alike(clock: FakeClock, seconds: float) -> None:
    baseline = recorded(clock, *[seconds] * 30).baseline()
    assert baseline is not None
    assert seconds < baseline.reference


def test_calls_longer_than_the_last_bound_are_counted(clock: FakeClock) -> None:
    durations = recorded(clock, 1e6)
    histogram, baseline = durations.histogram(), durations.baseline()
    assert histogram.counts[-1] == 1
    assert baseline is not None
    assert baseline.typical == pytest.approx(histogram.bounds[-1], rel=0.1)


def test_a_call_without_a_method_has_the_empty_one(clock: FakeClock) -> None:
    assert recorded(clock, 0.01).methods() == ("",)


def test_methods_have_baselines_of_their_own(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(20):
        durations.record(0.01, method="/shop/Get")
        durations.record(1.0, method="/shop/Report")
    fast, slow = durations.baseline("/shop/Get"), durations.baseline("/shop/Report")
    assert fast is not None
    assert slow is not None
    assert fast.reference < 0.1 < slow.typical
    assert durations.baseline("/shop/Other") is None
    assert durations.methods() == ("/shop/Get", "/shop/Report")
    assert durations.histogram("/shop/Get").seconds == pytest.approx(0.2)
    assert durations.histogram("/shop/Other").calls == 0
    together = durations.baseline()
    assert together is not None
    assert together.calls == 40


def test_all_baselines_are_had_at_once_and_are_the_same_until_a_call_changes_them(
    clock: FakeClock,
) -> None:
    durations = Durations(clock)
    assert durations.baselines() == ()
    durations.record(9.0, method="/p.P/Replayed", live=False)
    clock.advance(60.0)
    for _ in range(30):
        durations.record(0.01, method="/p.P/Quick")
        durations.record(1.0, method="/p.P/Slow")
    found = durations.baselines()
    assert dict(found) == {
        method: durations.baseline(method) for method in ("/p.P/Quick", "/p.P/Slow")
    }
    again = durations.baselines()
    assert [one is other for (_, one), (_, other) in zip(found, again, strict=True)] == [True, True]
    durations.record(0.2, method="/p.P/Quick")
    assert dict(durations.baselines())["/p.P/Quick"] == durations.baseline("/p.P/Quick")
    assert durations.baselines() != found


def test_a_baseline_of_no_calls_was_told() -> None:
    assert Baseline(0.03, 0.02, 0).told
    assert not Baseline(0.03, 0.02, 1).told


def test_the_minute_before_an_outage_is_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    clock.advance(30)
    durations.record(1.0)
    clock.advance(30)
    for _ in range(20):
        durations.record(1.0)
    durations.begin_outage()
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20
    assert baseline.reference < 0.1


def test_it_is_the_minute_before_the_time_of_the_outage(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    clock.advance(100)
    for _ in range(20):
        durations.record(1.0)
    opened = clock()
    clock.advance(100)
    durations.begin_outage(opened)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20


def test_each_call_is_of_the_time_when_it_ended() -> None:
    clock = FakeClock(0.0)  # so that the first calls took as long as it is to the last ones
    durations = recorded(clock, *[100.0] * 20)
    clock.advance(100)
    for _ in range(20):
        durations.record(0.01)
    durations.begin_outage()
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20
    assert baseline.typical == pytest.approx(100, rel=0.1)


def test_it_is_if_little_else_is_known(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 19)
    clock.advance(62)
    durations.record(1.0)
    durations.begin_outage()
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20


def test_calls_of_an_outage_are_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    before = durations.baseline()
    durations.begin_outage()
    for _ in range(20):
        durations.record(1.0)
    assert durations.baseline() == before
    assert durations.slow_share() == 1.0
    durations.end_outage()
    durations.record(1.0)
    after = durations.baseline()
    assert after is not None
    assert after.calls == 21


def test_calls_beside_replays_are_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    before = durations.baseline()
    clock.advance(30)
    for _ in range(1000):
        durations.record(0.5, live=False)
        durations.record(0.5)
        clock.advance(1)
    assert durations.baseline() == before


def test_they_are_if_there_are_no_others(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(30):
        durations.record(0.5, live=False)
        durations.record(0.5)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 30


def test_they_are_over_many_half_minutes(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(6):
        for _ in range(5):
            durations.record(0.5, live=False)
            durations.record(0.5)
        clock.advance(30)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 30


def test_a_call_that_is_noted_late_does_not_hide_the_replays_beside_others(
    clock: FakeClock,
) -> None:
    durations = recorded(clock, *[0.01] * 20)
    before, ended = durations.baseline(), clock()
    clock.advance(30)
    durations.record(0.5, live=False)
    durations.record(0.5)
    durations.methods()  # counts them
    durations.note(ended, 0.5, "", live=True, failed=False)
    assert durations.baseline() == before


def test_replays_and_failures_are_not_the_measure(clock: FakeClock) -> None:
    durations = Durations(clock)
    durations.record(1.0, live=False)
    durations.record(1.0, failed=True)
    assert durations.baseline() is None


def test_the_measure_follows_the_time(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    for _ in range(300):
        clock.advance(1)
        durations.record(1.0)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.typical == pytest.approx(1.0, rel=0.1)
    assert 180 <= baseline.calls <= 210


def test_few_calls_are_kept_for_long(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(30):
        clock.advance(3600)
        durations.record(0.01)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 21  # 20, and the one that began the latest half minute


def test_the_share_of_slow_calls_is_of_the_latest_50_live_ones(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 200)
    assert durations.slow_share() == 0.0
    for _ in range(10):
        durations.record(1.0)
        durations.record(1.0, live=False)
        durations.record(1.0, failed=True)
    assert durations.slow_share() == 0.2
    for _ in range(50):
        durations.record(1.0)
    assert durations.slow_share() == 1.0


def test_the_share_of_slow_calls_is_of_the_time_since_an_outage_began(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 200)
    durations.record(0.01, method="Charge")
    durations.begin_outage()
    for _ in range(20):
        durations.record(0.0, failed=True)
    durations.end_outage()
    assert durations.slow_share() is None
    for _ in range(9):
        durations.record(1.0)
    assert durations.slow_share() is None
    durations.record(1.0)
    assert durations.slow_share() == 1.0
    assert durations.slow_share("Charge") is None


def test_no_call_is_slow_while_there_is_no_reference(clock: FakeClock) -> None:
    durations = Durations(clock)
    durations.begin_outage()
    for _ in range(10):
        durations.record(1.0)
    assert durations.slow_share() == 0.0


def test_the_share_is_known_after_an_outage_that_came_after_slow_calls(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    clock.advance(60)
    for _ in range(20):
        durations.record(1.0)
    durations.begin_outage()
    for _ in range(10):
        durations.record(0.5)
    assert durations.slow_share() == 1.0


def test_the_share_is_known_in_an_outage_after_a_restart(clock: FakeClock) -> None:
    durations = Durations(clock)
    durations.begin_outage()
    durations.load(recorded(clock, *[0.01] * 20).dump())
    for _ in range(10):
        durations.record(1.0)
    assert durations.slow_share() == 1.0


def test_a_call_that_takes_as_long_as_the_reference_is_not_slow(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    baseline = durations.baseline()
    assert baseline is not None
    durations.begin_outage()
    for _ in range(10):
        durations.record(baseline.reference)
    assert durations.slow_share() == 0.0


def test_the_share_follows_the_reference(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 50)
    assert durations.slow_share() == 0.0
    durations.record(1.0)
    assert durations.slow_share() == 1 / 50
    for _ in range(1000):
        durations.record(1.0)
    assert durations.slow_share() == 0.0


def test_what_replays_slow_down_does_not_become_the_reference_for_them(clock: FakeClock) -> None:
    durations = Durations(clock)
    durations.record(0.01, live=False)
    for _ in range(20):
        durations.record(0.01)
    assert durations.slow_share() == 0.0
    for _ in range(200):
        durations.record(1.0)
    assert durations.slow_share() == 1.0


def test_calls_that_nobody_asks_about_are_not_kept(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 255)
    assert len(durations.notes) == 255
    durations.record(0.01)
    assert len(durations.notes) == 0


def test_methods_have_shares_of_their_own(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(100):
        durations.record(0.01, method="/shop/Get")
        durations.record(1.0, method="/shop/Report")
    for _ in range(10):
        durations.record(0.1, method="/shop/Get")
        durations.record(1.0, method="/shop/Report")
    assert durations.slow_share("/shop/Get") == 10 / 50
    assert durations.slow_share("/shop/Report") == 0.0
    assert durations.slow_share() == 10 / 50
    assert durations.slow_share("/shop/Other") is None


def test_the_histogram_has_all_calls_and_never_decreases(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(10):
        clock.advance(1000)
        for _ in range(10):
            durations.record(0.01)
            durations.record(0.02, live=False)
            durations.record(0.03, failed=True)
    answered, failed = durations.histogram(), durations.histogram(failed=True)
    assert (answered.calls, failed.calls) == (200, 100)
    assert answered.seconds == pytest.approx(3.0)
    assert len(answered.counts) == len(answered.bounds) + 1
    for bound, count in zip(answered.bounds, answered.counts[:-1], strict=True):
        assert not count or 0.01 <= bound < 0.0231


def test_what_is_loaded_is_added_to_what_is_counted() -> None:
    counts = counted((0.5, 0.25))
    counts.load(counts.histogram())
    assert (counts.calls, counts.seconds) == (4, 1.5)


def test_a_baseline_is_a_value() -> None:
    assert Baseline(0.02, 0.016, 100) == Baseline(reference=0.02, typical=0.016, calls=100)
