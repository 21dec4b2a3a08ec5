"""How a call ended: whose end it is, and what it means for the work that the call was part of.

grpcio has no status of its own for what fails in this process, or for what a proxy answers in place
of the server. Both are told by their details alone (grpc/_channel.py, grpc/_cython, and in
src/core the message size filter, the credentials and the client's authorization filter).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc

from fusewire._sendable import LONGEST_TIMEOUT
from fusewire.operation import KeyEnd

WRITE_FAILED: Final = "Internal error from Core"
"""The details, with INTERNAL, of an asyncio call one of whose requests could not be written."""

_MESSAGES: Final = frozenset(
    {
        (grpc.StatusCode.INTERNAL, "Exception serializing request!"),
        (grpc.StatusCode.INTERNAL, "Exception deserializing response!"),
        (grpc.StatusCode.UNKNOWN, "Exception iterating requests!"),
    }
)
"""The cause lies in this process, and in the messages of the call itself."""

_UNSENT: Final = MappingProxyType(
    {
        grpc.StatusCode.INTERNAL: re.compile(
            "Invalid metadata|Illegal status code from call credentials; .*", re.DOTALL
        ),
        # What gives a call its credentials failed, or gave what cannot be sent.
        grpc.StatusCode.UNAVAILABLE: re.compile(
            "Getting metadata from plugin failed with error: .*|Illegal metadata"
            "|error (?:fetching|parsing) oauth2 token.*",
            re.DOTALL,
        ),
        # The channel must not carry them.
        grpc.StatusCode.UNAUTHENTICATED: re.compile(
            r"Could not generate JWT\.|Established channel does not have .* security level.*"
            r"|Incompatible credentials set on channel and call\."
            "|call host does not match SSL server name"
        ),
    }
)
"""The cause lies in this process, and nothing was sent."""

_SIZE_LIMIT: Final = re.compile(
    r"(?:(CLIENT|SERVER): )?(Sent|Received) message larger than max|received metadata size exceeds"
)
_TOO_LARGE_A_REQUEST: Final = ("CLIENT: Sent", "SERVER: Received")

_PROXYS_ANSWER: Final = re.compile(r"Received http2 header with status: ([0-9]{3})")

_FINAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        # Not UNIMPLEMENTED: gRPC makes it of a proxy's 404, which ends when the route is there.
    }
)
"""By these the server says no to the request itself, and would say so again."""

_NOT_LET_IN: Final = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
        grpc.StatusCode.PERMISSION_DENIED: "permission_denied",
    }
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
        """Whether the cause lies in this process.

        A message that cannot be serialized, a size limit, metadata or a deadline that make no
        sense, credentials that cannot be had or must not be sent.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            limit = _SIZE_LIMIT.match(self.details)
            return limit is not None and limit[2] is not None and limit[1] != "SERVER"
        # asyncio's word for a request that could not be written, because the call is over. The
        # server's own status mostly follows it (settle_late in _aio); where it does not, it may
        # have been any.
        return (
            (self.code, self.details) in _MESSAGES
            or (self.code is grpc.StatusCode.INTERNAL and self.details == WRITE_FAILED)
            or self._unsent
            or self._deadline_overflows
        )

    @property
    def http_status(self) -> int | None:
        """The HTTP status with which a proxy answered in the server's place, None if none did."""
        answer = _PROXYS_ANSWER.match(self.details)
        return None if answer is None else int(answer[1])

    @property
    def final(self) -> bool:
        """Whether the server said no to the request itself, and would say so again."""
        return self.code in _FINAL and self.http_status is None

    @property
    def condition(self) -> str | None:
        """Why no single call is to blame for the end, None if this one may be.

        - ``"local"``: the cause lies in this process and not in the call's own messages: whatever
          is sent from here would end so. Nothing was sent.
        - ``"unauthenticated"``, ``"permission_denied"``: the server, or a proxy, does not accept
          the caller.
        - ``"refused"``: the server is full, or said when to come back. Not UNAVAILABLE without a
          hint: a message that crashes the server ends so, and must run out of attempts.

        A message that cannot be serialized or is above a size limit is the call's own failure.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return None if _SIZE_LIMIT.match(self.details) else "refused"
        if self._unsent or self._deadline_overflows:
            return "local"
        if self.local:
            return None
        if self.code in _NOT_LET_IN:
            return _NOT_LET_IN[self.code]
        return None if self.retry_after is None else "refused"

    @property
    def key_end(self) -> KeyEnd:
        """What the end, which is not OK, means for the call's idempotency key.

        ABORTED is in doubt: a server may say so while an earlier call of the same key is not over.
        """
        if self.final:
            return KeyEnd.ANSWERED
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            limit = _SIZE_LIMIT.match(self.details)
            # A reply that is too large comes from a call that had its effect.
            asked_too_much = limit is None or limit[0].startswith(_TOO_LARGE_A_REQUEST)
            return KeyEnd.NO_EFFECT if asked_too_much else KeyEnd.IN_DOUBT
        turned_away = self.code in _NOT_LET_IN or self.code is grpc.StatusCode.UNIMPLEMENTED
        if turned_away or self._unsent or self.details == "Exception serializing request!":
            return KeyEnd.NO_EFFECT
        return KeyEnd.IN_DOUBT

    @property
    def _unsent(self) -> bool:
        details = _UNSENT.get(self.code)
        return details is not None and details.fullmatch(self.details) is not None

    @property
    def _deadline_overflows(self) -> bool:
        return (
            self.code is grpc.StatusCode.DEADLINE_EXCEEDED
            and self.timeout is not None
            # Also infinity, and what is no number.
            and not abs(self.timeout) < LONGEST_TIMEOUT
        )
