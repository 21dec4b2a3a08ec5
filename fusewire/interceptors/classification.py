"""What the end of a call says about the dependency: the table of statuses and its exceptions.

A call that ended OK is a success always; these rules are for the other ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

import grpc

from fusewire.breaker import Outcome
from fusewire.errors import SettingsError
from fusewire.operation import KeyEnd

DEFAULT_OUTCOMES: Final[Mapping[grpc.StatusCode, Outcome]] = MappingProxyType(
    {
        # The dependency did not answer, or broke. Python servers answer UNKNOWN for any uncaught
        # exception. DEADLINE_EXCEEDED counts because wait-for-ready turns an outage into it.
        grpc.StatusCode.UNAVAILABLE: Outcome.FAILURE,
        grpc.StatusCode.INTERNAL: Outcome.FAILURE,
        grpc.StatusCode.UNKNOWN: Outcome.FAILURE,
        grpc.StatusCode.DATA_LOSS: Outcome.FAILURE,
        grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.FAILURE,
        # It says nothing. A quota is the caller's own, and a size limit may be local.
        grpc.StatusCode.CANCELLED: Outcome.IGNORED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.IGNORED,
        # The dependency answered. Ignored, a probe answered NOT_FOUND would never close a circuit.
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
"""What each status says about the dependency, unless told otherwise."""

WRITE_FAILED: Final = "Internal error from Core"
"""The details, with INTERNAL, of an asyncio call one of whose requests could not be written."""

# grpcio gives these statuses to what failed in this process; only the details tell them apart
# (grpc/_channel.py and grpc/_cython; src/core's message size filter for the last two).
_MESSAGES: Final = frozenset(
    {
        (grpc.StatusCode.INTERNAL, "Exception serializing request!"),
        (grpc.StatusCode.INTERNAL, "Exception deserializing response!"),
        (grpc.StatusCode.UNKNOWN, "Exception iterating requests!"),
    }
)
"""What lies in this process and in the messages of the call itself."""
_UNSENT: Final = frozenset(
    {
        (grpc.StatusCode.INTERNAL, "Exception serializing request!"),
        (grpc.StatusCode.INTERNAL, "Invalid metadata"),
    }
)
_LOCAL: Final = frozenset(
    {
        *_MESSAGES,
        *_UNSENT,
        # asyncio's word for a request that could not be written, because the call is over. The
        # server's own status mostly follows it (aio_calls.settle_late); where it does not, it may
        # have been any.
        (grpc.StatusCode.INTERNAL, WRITE_FAILED),
    }
)
_LOCAL_SIZE_LIMITS: Final = (
    "CLIENT: Sent message larger than max",
    "CLIENT: Received message larger than max",
    "Sent message larger than max",
    "Received message larger than max",
)
_SIZE_LIMITS: Final = (
    *_LOCAL_SIZE_LIMITS,
    "SERVER: Sent message larger than max",
    "SERVER: Received message larger than max",
)


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended.

    Attributes:
        method: the method's path, ``/pkg.Service/Method``.
        code: its final status.
        details: the text that came with it.
        trailing_metadata: what else came with it.
        timeout: the seconds that the user gave the call, None without a deadline.
        retry_after: the seconds after which the server asked to be called again (pushback or
            RetryInfo), None if it did not.
        duration: the seconds that it took.
    """

    method: str
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float | None
    retry_after: float | None
    duration: float = 0.0

    @property
    def local(self) -> bool:
        """Whether the cause lies in this process: a serializer, invalid metadata, a size limit."""
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.details.startswith(_LOCAL_SIZE_LIMITS)
        return (self.code, self.details) in _LOCAL

    @property
    def condition(self) -> str | None:
        """Why no single call is to blame for the end, None if this one may be.

        - ``"local"``: the cause lies in this process and not in the call's own messages: whatever
          is sent from here would end so.
        - ``"unauthenticated"``, ``"permission_denied"``: the server does not accept who calls.
        - ``"refused"``: the server is full, or said when to come back. Not UNAVAILABLE without a
          hint: a message that crashes the server ends so, and must run out of attempts.

        A message that cannot be serialized or is above a size limit is the call's own failure.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return None if self.details.startswith(_SIZE_LIMITS) else "refused"
        if self.local:
            return None if (self.code, self.details) in _MESSAGES else "local"
        if self.code in _CONDITIONS:
            return _CONDITIONS[self.code]
        return None if self.retry_after is None else "refused"


_CONDITIONS: Final = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
        grpc.StatusCode.PERMISSION_DENIED: "permission_denied",
    }
)


FINAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""The server looked at the request and said no; sent again, it would be told the same."""

_WITHOUT_EFFECT: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def key_end(end: CallEnd) -> KeyEnd:
    """Decide what a call's end, which is not OK, means for its idempotency key.

    ABORTED is in doubt: a server may say so while an earlier call of the same key is not over.
    """
    if end.code in FINAL:
        return KeyEnd.ANSWERED
    if end.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # A reply that is too large comes from a call that had its effect.
        received = "Received message larger" in end.details
        return KeyEnd.IN_DOUBT if received else KeyEnd.NO_EFFECT
    if end.code in _WITHOUT_EFFECT or (end.code, end.details) in _UNSENT:
        return KeyEnd.NO_EFFECT
    return KeyEnd.IN_DOUBT


Classify = Callable[[CallEnd], Outcome]
"""A function that decides what a call's end says. One that raises is logged and means IGNORED."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The table of statuses, with changes; an instance is a :data:`Classify` function.

    Four rules come before the table: a local cause is IGNORED; a deadline that was not positive or
    below `min_deadline` is IGNORED, because it was too short to say anything; CANCELLED after
    `max_wait` is a FAILURE; RESOURCE_EXHAUSTED is a FAILURE when the server also says when to come
    back, unless `outcomes` has its own entry.

    Args:
        outcomes: what the named statuses mean instead.
        min_deadline: seconds; a call given less that ended DEADLINE_EXCEEDED is no evidence.
        max_wait: seconds; a call that its user cancelled after so long is a FAILURE, because
            ``asyncio.wait_for`` and its like show a hung server as CANCELLED. None: never.

    Raises:
        SettingsError: an entry that is no status or no outcome, or a deadline that is no duration.
    """

    outcomes: Mapping[grpc.StatusCode, Outcome] = field(default_factory=dict)
    min_deadline: float = 0.0
    max_wait: float | None = None

    def __post_init__(self) -> None:
        for code, outcome in cast("Mapping[object, object]", self.outcomes).items():
            if not isinstance(code, grpc.StatusCode) or not isinstance(outcome, Outcome):
                raise SettingsError(
                    f"outcomes: {code!r}: {outcome!r} is not a status and what it means; "
                    "accepted is, for example, {grpc.StatusCode.NOT_FOUND: Outcome.FAILURE}"
                )
        if self.outcomes.get(grpc.StatusCode.OK, Outcome.SUCCESS) is not Outcome.SUCCESS:
            raise SettingsError("outcomes: OK is always a success; accepted are other statuses")
        object.__setattr__(self, "outcomes", MappingProxyType(dict(self.outcomes)))
        if not _is_duration(self.min_deadline):
            raise SettingsError(
                f"min_deadline: {self.min_deadline!r} is not a duration; "
                "accepted are seconds from 0 up"
            )
        if self.max_wait is not None and not (_is_duration(self.max_wait) and self.max_wait > 0):
            raise SettingsError(
                f"max_wait: {self.max_wait!r} is not a duration; accepted are seconds above 0, "
                "and None"
            )

    def __call__(self, end: CallEnd) -> Outcome:
        """Decide what `end` says about the dependency."""
        if end.local:
            return Outcome.IGNORED
        if end.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._too_short(end.timeout):
            return Outcome.IGNORED
        if end.code is grpc.StatusCode.CANCELLED and self._too_long(end.duration):
            return Outcome.FAILURE
        if end.code in self.outcomes:
            return self.outcomes[end.code]
        if end.code is grpc.StatusCode.RESOURCE_EXHAUSTED and end.retry_after is not None:
            return Outcome.FAILURE
        return DEFAULT_OUTCOMES[end.code]

    def _too_long(self, duration: float) -> bool:
        return self.max_wait is not None and duration >= self.max_wait

    def _too_short(self, timeout: float | None) -> bool:
        return timeout is not None and (timeout <= 0 or timeout < self.min_deadline)


def _is_duration(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )
