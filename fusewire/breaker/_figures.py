"""What changes of a breaker, read at one moment at a cost that no window and no load raises."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fusewire.breaker._events import Reason  # noqa: TC001 - see fusewire/_public.py
from fusewire.breaker._histogram import CallDurations  # noqa: TC001 - see fusewire/_public.py
from fusewire.breaker._snapshot import Counters  # noqa: TC001 - see fusewire/_public.py
from fusewire.breaker._states import BY_HAND, CircuitState


class CircuitMode(StrEnum):
    """Whether a circuit follows its rules, or what was set by hand instead."""

    AUTOMATIC = "automatic"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a breaker knows at one moment, without the content of its window.

    Reading it is cheap, so monitoring can do it as often as it likes: see
    :meth:`CircuitBreaker.figures`.

    Attributes:
        name: the breaker's name.
        state: its state. An open circuit whose recovery time is over is half open.
        state_seconds: seconds since the state changed last.
        retry_after: seconds until a call may be admitted; 0.0 if one would be admitted now.
        reason: why it last opened; ``None`` if it never did.
        by: who set the state by hand, as far as they said; empty if it was not set by hand.
        note: why they did.
        counters: totals since it was made.
        failure_rate: share of failures in the window, from 0 to 1; ``None`` if there is no window,
            or if it holds fewer calls than ``minimum_calls``, so that no rate opens the circuit.
        slow_call_rate: the same for slow calls; ``None`` also without ``slow_call_duration``.
        calls: calls in the window; 0 without one.
        failed: failed ones among them.
        slow: slow ones among them.
        consecutive_failures: failures in a row.
        reopenings: rounds of probes that have failed since it was last closed.
        probes_running: probes in flight.
        probes_succeeded: probes that have succeeded since it became half open.
        error_type: the type of the last failure's error, such as ``"grpc.RpcError"``; empty if
            there was no failure, or if nobody has named its error.
        error_status: the name of its status, such as ``"UNAVAILABLE"``; empty if it has none.
        durations: how long calls took since they were first measured; ``None`` if they are not.
    """

    name: str
    state: CircuitState
    state_seconds: float
    retry_after: float
    reason: Reason | None
    counters: Counters
    failure_rate: float | None
    slow_call_rate: float | None
    calls: int
    failed: int
    slow: int
    consecutive_failures: int
    reopenings: int
    probes_running: int
    probes_succeeded: int
    by: str = ""
    note: str = ""
    error_type: str = ""
    error_status: str = ""
    durations: CallDurations | None = None

    @property
    def mode(self) -> CircuitMode:
        """Whether the state follows the rules, or was set by hand."""
        return CircuitMode(self.state) if self.state in BY_HAND else CircuitMode.AUTOMATIC
