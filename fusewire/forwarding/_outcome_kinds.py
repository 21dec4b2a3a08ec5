"""What became of a queued call, as its caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import grpc  # noqa: TC002 - see fusewire/_public.py


class OutcomeKind(StrEnum):
    """How a queued call has ended."""

    OK = "ok"
    """It was made: the reply is there, unless a status said that it was made before."""
    REFUSED = "refused"
    """The server answered that it will not make it."""
    EXPIRED = "expired"
    """Its time was over before it was ever sent."""
    CANCELLED = "cancelled"
    """Its key was cancelled at the server: it was not made, and will not be."""
    AMBIGUOUS = "ambiguous"
    """It may have been made, and must not be sent again."""
    IN_DOUBT = "in-doubt"
    """The server has begun it, and does not know whether it took effect."""
    STALE_KEY = "stale-key"
    """It was first sent so long ago that the server may have forgotten it."""
    EXHAUSTED = "exhausted"
    """It failed too often."""
    MALFORMED = "malformed"
    """It could not be read."""
    CRASHED = "crashed"
    """Its forwarder died three times while it was sent."""
    REJECTED = "rejected"
    """`RetryPolicy.dead_on` says that it is not tried again."""

    @property
    def final(self) -> bool:
        """Whether it stays so; else a person decides, and a final outcome may follow."""
        return self in _FINAL


_FINAL = frozenset(
    {OutcomeKind.OK, OutcomeKind.REFUSED, OutcomeKind.EXPIRED, OutcomeKind.CANCELLED}
)


class CallStatus(NamedTuple):
    """The status that the last attempt of a call ended with.

    Attributes:
        code: the status.
        details: its text.
        rich: the serialized ``google.rpc.Status`` that came with it; empty if none did.
    """

    code: grpc.StatusCode
    details: str = ""
    rich: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a queued call.

    Of one call there may be several: compare `operation_id`. If a forwarder dies before it can
    acknowledge the call, an equal outcome may follow, or a notice after a final one, which changes
    nothing.

    Attributes:
        operation_id: which call.
        method: ``/pkg.Service/Method``; empty if the call could not be read.
        kind: how it has ended.
        final: whether it stays so. Else the call is in the dead queue, a person decides, and a
            final outcome may follow.
        reply: the response: of the policy's `response`, else of the class that the method's
            generated code names, else bytes. None where there is none.
        status: what its last attempt ended with in the forwarder that settled it; None if that
            made none.
        request: the request, of the class that the method's generated code names, else bytes. None
            if it could not be read.
    """

    operation_id: str
    method: str
    kind: OutcomeKind
    final: bool
    reply: Any = None
    status: CallStatus | None = None
    request: Any = None
