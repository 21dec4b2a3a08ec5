"""What a breaker reports to its listeners, as frozen values.

::

    Event
    ├── StateChanged        the circuit went from one state to another
    ├── SettingsChanged     other settings apply from now on
    ├── LeaseExpired        a probe was never settled; its place was taken back
    ├── BreakerAdded        a registry has the breaker: the first event of it
    ├── BreakerRemoved      a registry has the breaker no longer: the last event of it
    └── CallEvent           per call; listening to them slows every call down
        ├── CallSucceeded
        ├── CallFailed
        ├── CallIgnored
        ├── CallSlow        in addition to one of the three above
        ├── CallRejected
        ├── CallLate
        └── CallEventsDropped   call events are missing here: the listeners took too long
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from fusewire.breaker._settings import BreakerSettings  # noqa: TC001 - see fusewire/_public.py
from fusewire.breaker._states import CircuitState, Outcome  # noqa: TC001 - see fusewire/_public.py


class Cause(StrEnum):
    """Why a circuit changed its state."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    FAILURE_RATE = "failure_rate"
    SLOW_CALL_RATE = "slow_call_rate"
    HANGING_CALLS = "hanging_calls"
    PROBE_FAILED = "probe_failed"
    PROBE_SLOW = "probe_slow"
    RECOVERY_TIME_OVER = "recovery_time_over"
    PROBES_SUCCEEDED = "probes_succeeded"
    BY_HAND = "by_hand"
    RESTORED = "restored"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a circuit changed its state, with the values that decided it.

    ``str(reason)`` puts it in words.

    Attributes:
        cause: the rule that applied.
        value: the value that was reached: a number of failures or probes, a rate as a fraction, or
            a time in seconds.
        threshold: the setting that the value was compared with, in the same unit.
        calls: the number of calls that a rate was computed from.
    """

    cause: Cause
    value: float = 0.0
    threshold: float = 0.0
    calls: int = 0

    def __str__(self) -> str:
        return _WORDS[self.cause].format(self, round(self.value * self.calls))


_RATE = ": a rate of {0.value:.3g}, threshold {0.threshold:g}"
_WORDS = {
    Cause.CONSECUTIVE_FAILURES: "{0.value:g} failures in a row, threshold {0.threshold:g}",
    Cause.FAILURE_RATE: "{1} of {0.calls} calls failed" + _RATE,
    Cause.SLOW_CALL_RATE: "{1} of {0.calls} calls were slow" + _RATE,
    Cause.HANGING_CALLS: "{1} of {0.calls} calls were slow or hang" + _RATE,
    Cause.PROBE_FAILED: "a probe failed",
    Cause.PROBE_SLOW: "a probe took {0.value:.3g} s, slow is more than {0.threshold:g} s",
    Cause.RECOVERY_TIME_OVER: "the recovery time is over",
    Cause.PROBES_SUCCEEDED: "{0.value:g} probes succeeded",
    Cause.BY_HAND: "by hand",
    Cause.RESTORED: "restored from a snapshot",
    Cause.INTERRUPTED: "an exception or a fork interrupted a change, so it starts again",
}


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events. `name` is the breaker's."""

    name: str


EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The circuit went from `old` to `new` because of `reason`.

    Only these three count where events are compared.

    Attributes:
        error_type: the type of the last failure's error, such as ``"grpc.RpcError"``; empty if
            there was no failure, or if nobody has named its error.
        error_status: the name of its status, such as ``"UNAVAILABLE"``; empty if it has none.
        by: who set the state by hand, as far as they said.
        note: why they did.
        retry_after: if the circuit has opened, the seconds for which it rejects all calls; else 0.
        outage_seconds: seconds since the circuit left the states that admit calls, until now. An
            outage lasts from the first opening to the closing, with all rounds of probes. None if
            the circuit was not open, half open or forced open.
        rejected: calls that were rejected in that time.
    """

    old: CircuitState
    new: CircuitState
    reason: Reason
    error_type: str = field(default="", compare=False)
    error_status: str = field(default="", compare=False)
    by: str = field(default="", compare=False)
    note: str = field(default="", compare=False)
    retry_after: float = field(default=0.0, compare=False)
    outage_seconds: float | None = field(default=None, compare=False)
    rejected: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SettingsChanged(Event):
    """The settings `new` replace `old`."""

    old: BreakerSettings
    new: BreakerSettings


@dataclass(frozen=True, slots=True)
class LeaseExpired(Event):
    """A probe was not settled within its lease, so its place was freed."""


@dataclass(frozen=True, slots=True)
class BreakerAdded(Event):
    """A registry has this breaker. Its listeners get no event of the breaker before this one."""


@dataclass(frozen=True, slots=True)
class BreakerRemoved(Event):
    """A registry has this breaker no longer. Its listeners get no event of it after this one.

    The breaker itself goes on for code that keeps it. The registry makes another one when it is
    asked for the name again.
    """


CHANGES = (StateChanged, SettingsChanged, LeaseExpired)
"""The events of a breaker that are rare: all but call events."""

REGISTRY_CHANGES = (*CHANGES, BreakerAdded, BreakerRemoved)
"""The events of a registry that are rare."""


@dataclass(frozen=True, slots=True)
class CallEvent(Event):
    """The root of the events that every call causes."""


@dataclass(frozen=True, slots=True)
class CallSucceeded(CallEvent):
    """A call succeeded after `duration` seconds; ``None`` if it was not timed."""

    duration: float | None


@dataclass(frozen=True, slots=True)
class CallFailed(CallEvent):
    """A call failed after `duration` seconds; ``None`` if it was not timed.

    `error_type` and `error_status` are those of its error, as in :class:`StateChanged`. They do not
    count where events are compared.
    """

    duration: float | None
    error_type: str = field(default="", compare=False)
    error_status: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class CallIgnored(CallEvent):
    """A call ended that says nothing about the dependency."""


@dataclass(frozen=True, slots=True)
class CallSlow(CallEvent):
    """A call that succeeded or failed took `duration` seconds, which is too long."""

    duration: float


@dataclass(frozen=True, slots=True)
class CallRejected(CallEvent):
    """A call was not admitted. The next may be admitted in `retry_after` seconds."""

    state: CircuitState
    retry_after: float


@dataclass(frozen=True, slots=True)
class CallLate(CallEvent):
    """A call ended with `outcome` after the state had changed, so it was not counted."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CallEventsDropped(CallEvent):
    """`count` call events are missing here: the listeners take longer than the calls."""

    count: int
