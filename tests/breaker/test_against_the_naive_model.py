"""Any sequence of what users can do leaves the breaker where the naive model is.

``HYPOTHESIS_PROFILE=nightly`` takes at least 200,000 steps. ``HYPOTHESIS_PROFILE=mutation`` does
not make a failure shorter once it is found: that it fails is all that mutation testing asks.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fusewire.breaker import (
    BreakerSettings,
    CallEvent,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    Outcome,
    Permit,
    Snapshot,
    StateChanged,
)
from fusewire.testing import FakeClock
from tests.support.circuits import break_off, interrupt
from tests.support.figures import compare_figures, where_transitions_lead
from tests.support.naive_circuit import (
    CHANCE,
    DISABLED,
    FORCED_OPEN,
    HALF_OPEN,
    METRICS_ONLY,
    NaiveCircuit,
    NaivePermit,
)
from tests.support.nested_calls import NestedCalls
from tests.support.ways_through import BORROWERS, LENDERS

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
NIGHTLY = PROFILE == "nightly"
STEPS_WANTED = 200_000

pytestmark = pytest.mark.timeout(7200 if NIGHTLY else 120)

# Times are fractions of two, so that sums are exact and `>=` decides the same everywhere.
SECONDS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1024.0])
SHORT = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0, 2.0, 4.0])
OUTCOMES = st.sampled_from(["success", "success", "success", "failure", "failure", "ignored"])
WINDOWS: list[dict[str, Any]] = [
    {},
    {"window_calls": 1, "minimum_calls": 1},
    {"window_calls": 4, "minimum_calls": 2},
    {"window_calls": 10, "minimum_calls": 4},
    {"window_calls": 10, "minimum_calls": 10},
    {"window_seconds": 5.0, "minimum_calls": 3},
    {"window_seconds": 20.0, "minimum_calls": 1},
    {"window_seconds": 160.0, "minimum_calls": 6},
]


@st.composite
def all_settings(draw: st.DrawFn) -> BreakerSettings:
    window = draw(st.sampled_from(WINDOWS))
    rates = st.sampled_from([None, 0.25, 0.5, 1.0]) if window else st.none()
    slow_rate, failure_rate = draw(rates), draw(rates)
    rated = slow_rate is not None or failure_rate is not None
    slow_after = draw(st.sampled_from([0.5, 2.0]))
    return BreakerSettings(
        **window,
        failure_threshold=draw(st.sampled_from([None, 1, 2, 3, 5] if rated else [1, 2, 3, 5])),
        recovery_timeout=draw(st.sampled_from([1.0, 8.0])),
        half_open_max_calls=draw(st.sampled_from([1, 2, 3])),
        failure_rate_threshold=failure_rate,
        slow_call_rate_threshold=slow_rate,
        slow_call_duration=slow_after if slow_rate else draw(st.sampled_from([None, slow_after])),
        open_on_hanging=slow_rate is not None and draw(st.booleans()),
        probe_lease=draw(st.sampled_from([4.0, 32.0])),
        recovery_timeout_growth=draw(st.sampled_from([1.0, 2.0])),
        recovery_timeout_max=draw(st.sampled_from([None, 16.0])),
        recovery_timeout_jitter=draw(st.sampled_from([0.0, 0.5])),
        ramp_duration=draw(st.sampled_from([None, None, 4.0, 16.0])),
    )


class Steps:
    """Steps taken by all runs."""

    taken = 0


class CircuitMachine(RuleBasedStateMachine):
    broken = False
    restarted = False

    @initialize(
        rules=all_settings(), start=st.sampled_from([0.0, 1000.0, 1000.25]), proved=st.booleans()
    )
    def make(self, rules: BreakerSettings, start: float, *, proved: bool = False) -> None:
        self.clock = FakeClock(start)
        self.breaker = CircuitBreaker(
            "payments", settings=rules, clock=self.clock, rng=lambda: CHANCE
        )
        if proved:  # healthy calls offer no loans
            self.breaker._unproven = 0
            self.breaker._refresh()
        self.model = NaiveCircuit(rules, start)
        self.permits: list[tuple[Permit, NaivePermit]] = []
        self.changes: list[tuple[str, str, str]] = []
        self.listen(self.breaker)
        self.unhear: Any = None

    def listen(self, breaker: CircuitBreaker) -> None:
        def hear(event: Event) -> None:
            assert isinstance(event, StateChanged)
            self.changes.append((event.old, event.new, event.reason.cause))

        breaker.add_listener(hear, StateChanged)

    def advance(self, seconds: float) -> None:
        if self.broken:  # until the next change, it is not known that a change was broken off
            self.breaker.look()
            self.broken = False
        self.clock.advance(seconds)
        self.model.advance(seconds)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.advance(seconds)

    @rule(timed=st.booleans(), times=st.integers(1, 3))
    def take_permits(self, *, timed: bool, times: int) -> None:
        for _ in range(times):
            expected = self.model.acquire(timed=timed)
            if expected is None:
                with pytest.raises(CircuitOpenError) as refused:
                    self.breaker.acquire(timed=timed)
                assert refused.value.state == self.model.state
            else:
                permit = self.breaker.acquire(timed=timed)
                assert permit.probe == (expected.lease_end is not None)
                self.permits.append((permit, expected))

    @precondition(lambda self: self.permits)
    @rule(
        data=st.data(),
        outcome=OUTCOMES,
        hint=st.sampled_from([None, None, 0.5, 12.0, 1000.0]),
        keep=st.booleans(),
        in_collection=st.booleans(),
    )
    def settle_a_permit(
        self,
        *,
        data: st.DataObject,
        outcome: str,
        hint: float | None,
        keep: bool,
        in_collection: bool,
    ) -> None:
        index = data.draw(st.integers(0, len(self.permits) - 1))
        permit, expected = self.permits[index]
        self.model.settle(expected, outcome, hint)
        if in_collection:
            # As a generator that is collected while its thread makes a change.
            interrupt(self.breaker, lambda: permit.settle(Outcome(outcome), retry_after=hint))
        elif outcome == "success" and not keep:
            permit.success()
        else:
            permit.settle(Outcome(outcome), retry_after=hint)
        if not keep:
            del self.permits[index]

    @rule(
        outcome=OUTCOMES,
        seconds=SHORT,
        times=st.sampled_from([1, 1, 2, 5, 70]),
        awaited=st.booleans(),
    )
    def make_calls(
        self, outcome: str, seconds: float, times: int, *, awaited: bool = False
    ) -> None:
        def work() -> None:
            self.clock.advance(seconds)
            if outcome == "failure":
                raise ConnectionError
            if outcome == "ignored":
                raise KeyboardInterrupt

        async def work_async() -> None:
            work()

        guarded, guarded_async = self.breaker(work), self.breaker(work_async)
        for _ in range(times):
            expected = self.model.acquire()
            try:
                if awaited:
                    # It awaits nothing that waits, so one step takes it to its end.
                    with contextlib.suppress(StopIteration):
                        guarded_async().send(None)
                else:
                    guarded()
            except CircuitOpenError:
                assert expected is None, "rejected"
            except (ConnectionError, KeyboardInterrupt):
                pass
            if expected is not None:
                self.model.advance(seconds)
                self.model.settle(expected, outcome)
            assert self.clock.now == self.model.now, "admitted"

    @rule(
        lender=st.sampled_from(LENDERS),
        borrower=st.sampled_from(BORROWERS),
        inner=st.lists(st.tuples(OUTCOMES, SHORT), min_size=1, max_size=3),
        outcome=OUTCOMES,
        seconds=SHORT,
    )
    def make_calls_within_a_call(
        self,
        lender: Any,
        borrower: Any,
        inner: list[tuple[str, float]],
        outcome: str,
        seconds: float,
    ) -> None:
        self.breaker._offer_for_good()
        nested = NestedCalls(self.breaker, self.model, self.clock)
        nested.make(lender, borrower, inner, (outcome, seconds))

    # One rule for all of them, so that calls and their settlements make up most of the steps.
    @rule(
        how=st.sampled_from([FORCED_OPEN, DISABLED, METRICS_ONLY, "reset", HALF_OPEN, "hold open"]),
        seconds=st.sampled_from([0.5, 4.0, 1024.0]),
    )
    def act_by_hand(self, how: str, seconds: float) -> None:
        model, breaker = self.model, self.breaker
        if how == "hold open":
            model.hold_open(seconds)
            breaker.hold_open(seconds)
        elif how == HALF_OPEN:
            model.half_open()
            breaker.half_open()
        else:
            model.by_hand("closed" if how == "reset" else how)
            {
                FORCED_OPEN: breaker.force_open,
                DISABLED: breaker.disable,
                METRICS_ONLY: breaker.metrics_only,
                "reset": breaker.reset,
            }[how]()

    @rule()
    def call_in_the_midst_of_a_change(self) -> None:
        look = interrupt(self.breaker, self.breaker.look)
        expected_look = self.model.look_interrupting()
        assert (look.admitted, look.state.value, look.retry_after) == expected_look
        expected = self.model.acquire_interrupting()
        assert (expected is not None) is look.admitted
        if expected is None:
            with pytest.raises(CircuitOpenError) as refused:
                interrupt(self.breaker, self.breaker.acquire)
            assert refused.value.state == look.state
        else:
            permit = interrupt(self.breaker, self.breaker.acquire)
            assert not permit.probe
            self.permits.append((permit, expected))

    @rule(how=st.sampled_from([FORCED_OPEN, DISABLED, METRICS_ONLY, "reset"]))
    def act_by_hand_in_the_midst_of_a_change(self, how: str) -> None:
        interrupt(self.breaker, lambda: self.act_by_hand(how, 0.5))

    @rule()
    def a_change_is_broken_off(self) -> None:
        self.model.notice_leases()
        break_off(self.breaker)
        self.broken = True
        self.model.break_off()

    @rule()
    def fork(self) -> None:
        # What happens in the child, without the other process.
        self.model.notice_leases()
        self.breaker.look()
        self.breaker._renew()
        self.model.fork()

    @rule()
    def go_automatic(self) -> None:
        self.model.automatic()
        self.breaker.automatic()

    @rule(rules=all_settings())
    def replace_settings(self, rules: BreakerSettings) -> None:
        self.model.reload(rules)
        self.breaker.replace_settings(rules)

    @rule()
    def restart(self) -> None:
        self.restarted = True  # which is a change of state, and no transition
        self.model.restart()
        self.breaker.restore(Snapshot.from_json(self.breaker.snapshot().to_json()))

    @rule()
    def listen_to_calls_or_no_more(self) -> None:
        if self.unhear is None:
            self.unhear = self.breaker.add_listener(lambda _: None, CallEvent)
        else:
            self.unhear()
            self.unhear = None

    @rule()
    def compare(self) -> None:
        model = self.model
        look = self.breaker.look()
        assert (look.admitted, look.state.value, look.retry_after) == model.look()
        snapshot = self.breaker.snapshot()
        assert {name: getattr(snapshot.counters, name) for name in model.counters} == model.counters
        window = model.in_window()
        assert snapshot.calls == len(window)
        assert snapshot.failed == sum(failed for _, failed, _ in window)
        assert snapshot.slow == sum(slow for _, _, slow in window)
        assert snapshot.consecutive_failures == model.row()
        assert snapshot.probes_running == len(model.probes)
        assert snapshot.probes_succeeded == model.good_probes
        assert snapshot.reopenings == model.rounds
        assert self.changes == model.changes
        compare_figures(self.breaker.figures(), snapshot, model)

    @invariant()
    def the_transitions_lead_to_the_state(self) -> None:
        if hasattr(self, "breaker") and not self.restarted:
            assert where_transitions_lead(self.breaker._totals.transitions) == [self.breaker._state]

    @invariant()
    def never_more_probes_than_permitted(self) -> None:
        Steps.taken += 1
        if hasattr(self, "breaker"):
            assert len(self.breaker._probes) <= 3
            assert len(self.breaker._healthy) <= 64

    def teardown(self) -> None:
        if hasattr(self, "breaker"):
            self.compare()
            self.recover()
            self.compare()

    def recover(self) -> None:
        """With a dependency that answers, a few steps and calls close the circuit."""
        self.go_automatic()
        rules = self.breaker.settings
        # Enough to close a circuit and to fill its window to the minimum: a closed circuit that has
        # seen failures may open by a rate when it gets there, and closes with an empty window.
        calls = rules.half_open_max_calls + rules.minimum_calls
        # A circuit that was held open comes first, at the end of that time.
        self.time_passes(1024.0)
        for _ in range(4):
            self.time_passes(max(rules.max_open_time, 32.0, rules.probe_lease) + 1)
            self.make_calls("success", 0.0, calls)
        assert self.breaker.state is CircuitState.CLOSED
        self.time_passes(16.0)
        assert self.breaker.can_execute()


def test_the_breaker_does_what_the_model_does() -> None:
    profile = settings(
        max_examples=4200 if NIGHTLY else 150,
        stateful_step_count=60 if NIGHTLY else 40,
        deadline=None,
        phases=[Phase.generate] if PROFILE == "mutation" else list(Phase),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(CircuitMachine, settings=profile)


@pytest.mark.skipif(not NIGHTLY, reason="only the nightly profile takes so many steps")
def test_the_nightly_profile_takes_enough_steps() -> None:
    print(f"steps taken: {Steps.taken}")  # noqa: T201 - the figure is the point
    assert Steps.taken >= STEPS_WANTED
