"""The rules of a circuit once more, written to be obvious and not to be fast.

It shares no code with the breaker, keeps every call in a list, and recomputes every figure
whenever it is asked. Times are fractions of two in the tests that use it, so sums are exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.breaker import BreakerSettings

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
FORCED_OPEN, DISABLED, METRICS_ONLY = "forced_open", "disabled", "metrics_only"

SLICES = 20
DEFAULT_MAX = 300.0
CHANCE = 0.5
COUNTERS = ("succeeded", "failed", "ignored", "slow", "rejected", "late", "expired", "opened")


@dataclass(eq=False)
class NaivePermit:
    """Leave to make a call."""

    period: int
    started: float
    timed: bool
    lease_end: float | None = None
    settled: bool = False
    watched: bool = False
    hangs_from: float = 0.0


@dataclass
class NaiveCircuit:
    """A circuit by the rules."""

    settings: BreakerSettings
    now: float
    state: str = CLOSED
    period: int = 0
    results: list[bool] = field(default_factory=list)  # of this closed period: True is a failure
    inherited_row: int = 0  # failures in a row from a snapshot
    window: list[tuple[float, bool, bool]] = field(default_factory=list)  # time, failed, slow
    open_until: float = 0.0
    rounds: int = 0
    probes: list[NaivePermit] = field(default_factory=list)
    good_probes: int = 0
    watched: list[NaivePermit] = field(default_factory=list)
    ramp: tuple[float, float] | None = None
    ramp_credits: list[float] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    open_seconds: float = 0.0
    seconds_in_state: float = 0.0
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    # Figures.

    def width(self) -> float:
        assert self.settings.window_seconds is not None
        return self.settings.window_seconds / SLICES

    def slice_of(self, time: float) -> int:
        return int(time // self.width())

    def in_window(self) -> list[tuple[float, bool, bool]]:
        if self.settings.window_calls is not None:
            return self.window[-self.settings.window_calls :]
        if self.settings.window_seconds is not None:
            latest = self.slice_of(self.now)
            return [call for call in self.window if latest - self.slice_of(call[0]) < SLICES]
        return []

    def row(self) -> int:
        count = 0
        for failed in reversed(self.results):
            if not failed:
                return count
            count += 1
        return count + self.inherited_row

    def hanging(self) -> int:
        settings = self.settings
        if not settings.open_on_hanging:
            return 0
        assert settings.slow_call_duration is not None
        return sum(
            settings.slow_call_duration < self.now - permit.hangs_from <= settings.probe_lease
            for permit in self.watched
        )

    def why_open(self) -> str | None:
        settings = self.settings
        if settings.failure_threshold is not None and self.row() >= settings.failure_threshold:
            return "consecutive_failures"
        calls = self.in_window()
        if settings.failure_rate_threshold is not None and len(calls) >= settings.minimum_calls:
            rate = sum(failed for _, failed, _ in calls) / len(calls)
            if rate >= settings.failure_rate_threshold:
                return "failure_rate"
        if settings.slow_call_rate_threshold is not None:
            hanging = self.hanging()
            total = len(calls) + hanging
            slow = sum(slow for _, _, slow in calls) + hanging
            if (
                total >= settings.minimum_calls
                and slow / total >= settings.slow_call_rate_threshold
            ):
                return "hanging_calls" if hanging else "slow_call_rate"
        return None

    def max_open_time(self) -> float:
        if self.settings.recovery_timeout_max is not None:
            return self.settings.recovery_timeout_max
        return max(self.settings.recovery_timeout, DEFAULT_MAX)

    def open_time(self) -> float:
        seconds = self.settings.recovery_timeout
        for _ in range(self.rounds):
            seconds *= self.settings.recovery_timeout_growth
        return min(seconds, self.max_open_time())

    # Changes.

    def enter(self, state: str, cause: str) -> None:
        if state != self.state:
            self.changes.append((self.state, state, cause))
            self.seconds_in_state = 0.0
            if cause != "restored":
                self.transitions[self.state, state] += 1
        self.state = state
        self.period += 1
        self.results = []
        self.inherited_row = 0
        self.probes = []
        self.good_probes = 0
        self.watched = []
        self.ramp = None
        if state == CLOSED:
            self.rounds = 0
        if state not in (OPEN, HALF_OPEN):
            self.window = []

    def open(self, cause: str, hint: float | None = None) -> None:
        if self.state == HALF_OPEN:
            self.rounds += 1
        if hint is not None:
            seconds = min(hint, self.max_open_time())
        else:
            seconds = self.open_time() * (1 - self.settings.recovery_timeout_jitter * CHANCE)
        self.counters["opened"] += 1
        self.enter(OPEN, cause)
        self.open_until = self.now + seconds

    def close_if_recovered(self) -> None:
        if self.good_probes >= self.settings.half_open_max_calls:
            self.enter(CLOSED, "probes_succeeded")
            if self.settings.ramp_duration is not None:
                self.ramp = (self.now, self.settings.ramp_duration)
                self.ramp_credits = [1.0]

    def advance(self, seconds: float) -> None:
        if self.state == FORCED_OPEN:
            self.open_seconds += seconds
        elif self.state == OPEN:
            self.open_seconds += max(min(seconds, self.open_until - self.now), 0.0)
        self.seconds_in_state += seconds
        self.now += seconds

    def seconds_in_shown_state(self) -> float:
        """Seconds since the state that a look shows began."""
        if self.state == OPEN and self.now >= self.open_until:
            return self.now - self.open_until
        return self.seconds_in_state

    def notice_leases(self) -> None:
        for probe in list(self.probes):
            assert probe.lease_end is not None
            if self.now >= probe.lease_end:
                self.probes.remove(probe)
                self.counters["expired"] += 1

    # What users do.

    def ramp_share(self) -> float | None:
        """The share of calls admitted now, while there is a ramp."""
        if self.ramp is None or self.now - self.ramp[0] >= self.ramp[1]:
            return None
        return (self.now - self.ramp[0]) / self.ramp[1]

    def acquire(self, *, timed: bool = True) -> NaivePermit | None:
        self.notice_leases()
        if self.state == OPEN and self.now >= self.open_until:
            self.enter(HALF_OPEN, "recovery_time_over")
        if self.state == CLOSED and self.settings.open_on_hanging:
            cause = self.why_open()
            if cause is not None:
                self.open(cause)
        permit = NaivePermit(self.period, self.now, timed, hangs_from=self.now)
        if self.state == HALF_OPEN:
            if len(self.probes) + self.good_probes < self.settings.half_open_max_calls:
                permit.lease_end = self.now + self.settings.probe_lease
                self.probes.append(permit)
                return permit
        elif self.state in (CLOSED, METRICS_ONLY, DISABLED):
            share = self.ramp_share()
            if share is None:
                admitted = True
            else:
                admitted = sum(self.ramp_credits) + share >= 1
                self.ramp_credits.append(share - 1 if admitted else share)
            if admitted:
                if timed and self.settings.open_on_hanging:
                    self.watched.append(permit)
                return permit
        self.counters["rejected"] += 1
        return None

    def passes_without_being_counted(self) -> bool:
        return self.state in (METRICS_ONLY, DISABLED) or (
            self.state == CLOSED and self.ramp_share() is None
        )

    def acquire_interrupting(self) -> NaivePermit | None:
        """A call that interrupts a change in its own thread: it gets no probe."""
        self.notice_leases()
        if self.passes_without_being_counted():
            return NaivePermit(self.period, self.now, timed=True)
        self.counters["rejected"] += 1
        return None

    def look_interrupting(self) -> tuple[bool, str, float]:
        self.notice_leases()
        if self.passes_without_being_counted():
            return True, self.state, 0.0
        if self.state == FORCED_OPEN or (self.state == OPEN and self.now < self.open_until):
            return self.look()
        return False, HALF_OPEN if self.state == OPEN else self.state, 1.0

    def break_off(self) -> None:
        """A change was broken off half-way."""
        by_hand = self.state in (FORCED_OPEN, DISABLED, METRICS_ONLY)
        self.enter(self.state if by_hand else CLOSED, "interrupted")

    def fork(self) -> None:
        """Go on in a forked child, without what the parent's threads were doing."""
        self.probes = []
        self.watched = []

    def borrow(self, permit: NaivePermit, *, timed: bool) -> bool:
        """Lend the permit of an outer call to an inner one, if it is worth anything."""
        self.notice_leases()
        expired = permit.lease_end is not None and permit not in self.probes
        if permit.settled or permit.period != self.period or expired:
            return False
        if self.settings.open_on_hanging:
            if permit in self.watched:
                self.watched.remove(permit)
            if timed:
                self.watched.append(permit)
            permit.hangs_from = self.now
        return True

    def look(self) -> tuple[bool, str, float]:  # noqa: PLR0911 - one for each rule
        self.notice_leases()
        if self.state == OPEN:
            if self.now >= self.open_until:
                return True, HALF_OPEN, 0.0
            return False, OPEN, self.open_until - self.now
        if self.state == FORCED_OPEN:
            return False, FORCED_OPEN, self.settings.recovery_timeout
        if self.state == HALF_OPEN:
            if len(self.probes) + self.good_probes < self.settings.half_open_max_calls:
                return True, HALF_OPEN, 0.0
            first_end = min(probe.lease_end or 0.0 for probe in self.probes)
            return False, HALF_OPEN, min(first_end - self.now, 1.0)
        share = self.ramp_share()
        if share is not None and sum(self.ramp_credits) + share < 1:
            assert self.ramp is not None
            began, duration = self.ramp
            return False, CLOSED, began + duration * (1 - sum(self.ramp_credits)) - self.now
        if self.state == CLOSED and self.settings.open_on_hanging and self.why_open() is not None:
            return False, OPEN, self.open_time()
        return True, self.state, 0.0

    def settle(  # noqa: C901, PLR0912 - one branch for each rule
        self, permit: NaivePermit, outcome: str, hint: float | None = None
    ) -> None:
        self.notice_leases()
        if permit.settled:
            return
        permit.settled = True
        if permit in self.watched:
            self.watched.remove(permit)
        expired = permit.lease_end is not None and permit not in self.probes
        if permit.period != self.period or expired:
            self.counters["late"] += 1
            return
        if permit in self.probes:
            self.probes.remove(permit)
        if self.state == DISABLED:
            return
        if outcome == "ignored":
            self.counters["ignored"] += 1
            return
        failed = outcome == "failure"
        if not failed:
            hint = None
        slow_after = self.settings.slow_call_duration
        slow = permit.timed and slow_after is not None and self.now - permit.started > slow_after
        self.counters["failed" if failed else "succeeded"] += 1
        self.counters["slow"] += slow
        if self.state == HALF_OPEN:
            if failed:
                self.open("probe_failed", hint)
            elif slow and self.settings.slow_call_rate_threshold is not None:
                self.open("probe_slow")
            else:
                self.good_probes += 1
                self.close_if_recovered()
            return
        self.results.append(failed)
        self.window.append((self.now, failed, slow))
        if self.state == CLOSED:
            cause = self.why_open()
            if cause is not None:
                self.open(cause, hint)

    def by_hand(self, state: str) -> None:
        self.notice_leases()
        self.enter(state, "by_hand")

    def hold_open(self, seconds: float) -> None:
        self.notice_leases()
        if self.state == OPEN:
            self.open_until = max(self.open_until, self.now + seconds)

    def half_open(self) -> None:
        self.notice_leases()
        if self.state == OPEN:
            self.enter(HALF_OPEN, "by_hand")

    def automatic(self) -> None:
        self.notice_leases()
        if self.state in (FORCED_OPEN, DISABLED, METRICS_ONLY):
            self.enter(CLOSED, "by_hand")

    def reload(self, settings: BreakerSettings) -> None:
        self.notice_leases()
        kept = self.in_window()
        old, old_settings = self, self.settings
        if settings.window_calls is not None and old_settings.window_calls is not None:
            self.window = kept[-settings.window_calls :]
        elif settings.window_seconds is not None and old_settings.window_seconds is not None:
            # By the age of their slice, rounded to the new slices.
            old_width, new_width = old.width(), settings.window_seconds / SLICES
            latest_old, latest_new = self.slice_of(self.now), int(self.now // new_width)
            self.window = []
            for time, failed, slow in kept:
                back = round((latest_old - int(time // old_width)) * old_width / new_width)
                self.window.append(((latest_new - back) * new_width, failed, slow))
        else:
            self.window = []
        self.settings = settings
        if settings.ramp_duration is None:
            self.ramp = None
        lease = old_settings.probe_lease
        self.watched = [
            permit
            for permit in self.watched
            if settings.open_on_hanging and self.now - permit.hangs_from <= lease
        ]
        self.apply_rules()

    def apply_rules(self) -> None:
        if self.state == HALF_OPEN:
            self.close_if_recovered()
        elif self.state == CLOSED:
            cause = self.why_open()
            if cause is not None:
                self.open(cause)

    def restart(self) -> None:
        """Go through a snapshot and back."""
        _, state, wait = self.look()
        row, window, good, rounds = self.row(), self.in_window(), self.good_probes, self.rounds
        self.enter(state, "restored")
        self.open_until = self.now + wait
        self.inherited_row, self.window, self.good_probes, self.rounds = row, window, good, rounds
        self.apply_rules()
