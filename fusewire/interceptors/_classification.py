"""What the end of a call means: the table of statuses and the exceptions to it.

A call that ended OK is always a success. These rules are for the other ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

import grpc

from fusewire._validation import SECONDS, SECONDS_OR_ZERO, check, instance_of, invalid
from fusewire.breaker import Outcome
from fusewire.interceptors._call_end import CallEnd

DEFAULT_OUTCOMES: Final[Mapping[grpc.StatusCode, Outcome]] = MappingProxyType(
    {
        # The dependency did not answer, or broke. Python servers answer UNKNOWN for any uncaught
        # exception. With wait-for-ready an outage ends as DEADLINE_EXCEEDED.
        grpc.StatusCode.UNAVAILABLE: Outcome.FAILURE,
        grpc.StatusCode.INTERNAL: Outcome.FAILURE,
        grpc.StatusCode.UNKNOWN: Outcome.FAILURE,
        grpc.StatusCode.DATA_LOSS: Outcome.FAILURE,
        grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.FAILURE,
        # No evidence: a quota is the caller's own, and a size limit may be local.
        grpc.StatusCode.CANCELLED: Outcome.IGNORED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.IGNORED,
        # The dependency answered. If NOT_FOUND were ignored, probes would never close a circuit.
        grpc.StatusCode.OK: Outcome.SUCCESS,
        grpc.StatusCode.UNAUTHENTICATED: Outcome.SUCCESS,
        grpc.StatusCode.PERMISSION_DENIED: Outcome.SUCCESS,
        grpc.StatusCode.INVALID_ARGUMENT: Outcome.SUCCESS,
        grpc.StatusCode.NOT_FOUND: Outcome.SUCCESS,
        grpc.StatusCode.ALREADY_EXISTS: Outcome.SUCCESS,
        grpc.StatusCode.FAILED_PRECONDITION: Outcome.SUCCESS,
        grpc.StatusCode.ABORTED: Outcome.SUCCESS,
        grpc.StatusCode.OUT_OF_RANGE: Outcome.SUCCESS,
        grpc.StatusCode.UNIMPLEMENTED: Outcome.SUCCESS,
    }
)
"""What each status means for the circuit, unless a Classification says otherwise."""

_PROXY_OUTCOMES: Final[Mapping[int | None, Outcome]] = MappingProxyType(
    {
        404: Outcome.FAILURE,  # there is no route to the server
        401: Outcome.IGNORED,  # about the caller, and the server was not asked
        403: Outcome.IGNORED,
    }
)
"""What a proxy's HTTP status means if its gRPC status would mean that the server answered."""

Classify = Callable[[CallEnd], Outcome]
"""A function that decides what the end of a call means.

If it raises, the exception is logged and the end is IGNORED."""


_STATUS = instance_of(grpc.StatusCode)
_OUTCOME = instance_of(Outcome)


@dataclass(frozen=True, slots=True)
class Classification:
    """The table of statuses, with changes; an instance is a :data:`Classify` function.

    Five rules come before the table:

    - A local cause is IGNORED.
    - DEADLINE_EXCEEDED is IGNORED if the deadline was not positive or was below `min_deadline`.
    - CANCELLED after `max_wait` is a FAILURE.
    - RESOURCE_EXHAUSTED is a FAILURE if the server asks to be called again later.
    - A proxy's answer in the server's place is a FAILURE for HTTP 404, and IGNORED for 401 and 403.

    An entry in `outcomes` overrides the last two.

    Args:
        outcomes: what the named statuses mean instead.
        min_deadline: seconds; a shorter deadline that was exceeded is no evidence.
        max_wait: seconds; a call that its user cancelled after that time is a FAILURE, because
            ``asyncio.wait_for`` and the like show a hung server as CANCELLED. None: never.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """

    outcomes: Mapping[grpc.StatusCode, Outcome] = field(default_factory=dict)
    min_deadline: float = 0.0
    max_wait: float | None = None

    def __post_init__(self) -> None:
        for code, outcome in cast("Mapping[object, object]", self.outcomes).items():
            check("each status in outcomes", code, _STATUS)
            check(f"outcomes[{code}]", outcome, _OUTCOME)
            if code is grpc.StatusCode.OK and outcome is not Outcome.SUCCESS:
                raise invalid(f"outcomes[{code}]", "Outcome.SUCCESS, which OK always is", outcome)
        object.__setattr__(self, "outcomes", MappingProxyType(dict(self.outcomes)))
        check("min_deadline", self.min_deadline, SECONDS_OR_ZERO)
        check("max_wait", self.max_wait, SECONDS.or_none)

    def __call__(self, end: CallEnd) -> Outcome:
        """Return what `end` means for the circuit."""
        if end.local or self._is_too_short(end):
            return Outcome.IGNORED
        if end.code is grpc.StatusCode.CANCELLED and self._too_long(end.duration):
            return Outcome.FAILURE
        if end.code in self.outcomes:
            return self.outcomes[end.code]
        if end.code is grpc.StatusCode.RESOURCE_EXHAUSTED and end.retry_after is not None:
            return Outcome.FAILURE
        return _PROXY_OUTCOMES.get(end.http_status) or DEFAULT_OUTCOMES[end.code]

    def _too_long(self, duration: float) -> bool:
        return self.max_wait is not None and duration >= self.max_wait

    def _is_too_short(self, end: CallEnd) -> bool:
        timeout = end.timeout
        if end.code is not grpc.StatusCode.DEADLINE_EXCEEDED or timeout is None:
            return False
        return timeout <= 0 or timeout < self.min_deadline
