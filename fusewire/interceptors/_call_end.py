"""How a call ended: who ended it, and what that means for the work that the call was part of.

grpcio has no status of its own for a failure in this process, or for a proxy's answer in place of
the server's. Only the details show them (grpc/_channel.py, grpc/_cython, and in src/core the
message size filter, the credentials and the client's authorization filter).
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
"""The details, with INTERNAL, of an asyncio call when a request of it could not be written."""

_MESSAGES: Final = frozenset(
    {
        (grpc.StatusCode.INTERNAL, "Exception serializing request!"),
        (grpc.StatusCode.INTERNAL, "Exception deserializing response!"),
        (grpc.StatusCode.UNKNOWN, "Exception iterating requests!"),
    }
)
"""The cause is in this process, in the messages of the call itself."""

_UNSENT: Final = MappingProxyType(
    {
        grpc.StatusCode.INTERNAL: re.compile(
            "Invalid metadata|Illegal status code from call credentials; .*", re.DOTALL
        ),
        # The plugin that provides a call's credentials failed, or provided invalid ones.
        grpc.StatusCode.UNAVAILABLE: re.compile(
            "Getting metadata from plugin failed with error: .*|Illegal metadata"
            "|error (?:fetching|parsing) oauth2 token.*",
            re.DOTALL,
        ),
        # The channel may not carry the credentials.
        grpc.StatusCode.UNAUTHENTICATED: re.compile(
            r"Could not generate JWT\.|Established channel does not have .* security level.*"
            r"|Incompatible credentials set on channel and call\."
            "|call host does not match SSL server name"
        ),
    }
)
"""The cause is in this process, and nothing was sent."""

_SIZE_LIMIT: Final = re.compile(
    r"(?:(CLIENT|SERVER): )?(Sent|Received) message larger than max|received metadata size exceeds"
)
_TOO_LARGE_A_REQUEST: Final = ("CLIENT: Sent", "SERVER: Received")

_PROXY_ANSWER: Final = re.compile(r"Received http2 header with status: ([0-9]{3})")

_FINAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        # Not UNIMPLEMENTED: gRPC makes it of a proxy's 404, which ends when the route exists.
    }
)
"""The server rejected the request itself, and would reject it again."""

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
        timeout: seconds that the user gave the call; None without a deadline.
        retry_after: seconds after which the server asked to be called again (pushback or
            RetryInfo); None if it did not ask.
        duration: seconds that the call took.
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
        """Whether the cause is in this process.

        Such causes are: a message that cannot be serialized, a size limit, invalid metadata or an
        invalid deadline, credentials that are not available or may not be sent.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            limit = _SIZE_LIMIT.match(self.details)
            return limit is not None and limit[2] is not None and limit[1] != "SERVER"
        # WRITE_FAILED means that an asyncio call was over before a request was written. Usually the
        # server's own status follows (settle_late in _aio). If it does not, it is not known.
        return (
            (self.code, self.details) in _MESSAGES
            or (self.code is grpc.StatusCode.INTERNAL and self.details == WRITE_FAILED)
            or self._unsent
            or self._deadline_overflows
        )

    @property
    def http_status(self) -> int | None:
        """The HTTP status that a proxy answered with in the server's place; None if none did."""
        answer = _PROXY_ANSWER.match(self.details)
        return None if answer is None else int(answer[1])

    @property
    def final(self) -> bool:
        """Whether the server rejected the request itself, and would reject it again."""
        return self.code in _FINAL and self.http_status is None

    @property
    def condition(self) -> str | None:
        """Why every call would end like this now; None if the cause may be this call.

        - ``"local"``: the cause is in this process and not in the call's own messages. Nothing was
          sent.
        - ``"unauthenticated"``, ``"permission_denied"``: the server, or a proxy, does not accept
          the caller.
        - ``"refused"``: the server is full, or asked to be called again later. UNAVAILABLE without
          a hint is not among them: a message that crashes the server ends so too, and must run out
          of attempts.

        A message that cannot be serialized or exceeds a size limit is the call's own failure.
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

        ABORTED is in doubt: a server may send it while an earlier call with the key is in flight.
        """
        if self.final:
            return KeyEnd.ANSWERED
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            limit = _SIZE_LIMIT.match(self.details)
            # A reply that is too large comes from a call that took effect.
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
            # Also for infinity and NaN.
            and not abs(self.timeout) < LONGEST_TIMEOUT
        )
