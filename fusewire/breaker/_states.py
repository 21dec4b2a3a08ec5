"""The states of a circuit, the outcomes of a call, and what a look returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class CircuitState(StrEnum):
    """What a circuit does with the next call."""

    CLOSED = "closed"
    """Calls pass and are counted."""
    OPEN = "open"
    """Calls are rejected until the recovery time is over."""
    HALF_OPEN = "half_open"
    """A few calls pass, to find out whether the dependency has recovered."""
    FORCED_OPEN = "forced_open"
    """Calls are rejected until someone ends this state."""
    DISABLED = "disabled"
    """Calls pass and nothing is counted, until someone ends this state."""
    METRICS_ONLY = "metrics_only"
    """Calls pass and are counted, but nothing opens the circuit, until someone ends this state."""


BY_HAND = (CircuitState.FORCED_OPEN, CircuitState.DISABLED, CircuitState.METRICS_ONLY)
"""The states that are set by hand."""

REJECTING = (CircuitState.OPEN, CircuitState.FORCED_OPEN)
"""The states in which no call passes."""


class Outcome(Enum):
    """What a call says about the dependency."""

    SUCCESS = "success"
    """The dependency answered."""
    FAILURE = "failure"
    """The dependency did not answer, or answered that it cannot serve the call."""
    IGNORED = "ignored"
    """The call says nothing about the dependency: it was cancelled, abandoned, or wrong itself."""


# Constants, because every call needs them: Python 3.11 is slow to get a member from its class.
OPEN = CircuitState.OPEN
SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


@dataclass(frozen=True, slots=True)
class Admission:
    """What a breaker would do with a call made now.

    Attributes:
        admitted: whether the call would be admitted.
        state: the state that decides it.
        retry_after: seconds until a call may be admitted, as far as is known; 0.0 when admitted.
            It is unknown for a circuit that was forced open: then it is the recovery timeout.
    """

    admitted: bool
    state: CircuitState
    retry_after: float
