"""The exceptions that Fusewire raises on purpose.

::

    FusewireError
    ├── SettingsError (ValueError)          a setting that cannot be right; raised when it is made
    │   └── config.ConfigError              all that is wrong in files and variables, at once
    ├── CircuitBreakerError
    │   ├── CircuitOpenError                the circuit does not admit the call; nothing was sent
    │   │   ├── interceptors.RejectedCall (grpc.RpcError, grpc.Call, grpc.Future)
    │   │   │                               the same around a gRPC call, on a sync channel
    │   │   └── interceptors.AioRejectedCall (grpc.aio.AioRpcError)
    │   │                                   the same on an asyncio channel
    │   └── FailedResultError               what a fallback is given for a result that is a failure
    ├── BrokerError                         parking storage: RabbitMQ or SQLite
    │   ├── BrokerUnavailableError          cannot be reached, or was lost; nothing was stored
    │   ├── UnconfirmedError                may have been stored: no confirmation came in time
    │   ├── QueueNotFoundError              a queue that must exist does not
    │   ├── MoveRefusedError                the target refused the message; it stays where it was
    │   └── DeliveryLostError               the broker has the delivery, and delivers it again
    ├── interceptors.FallbackDeclined       a fallback raises it: the caller gets its error
    ├── parking.Reject                      a handler raises it: to the dead queue at once
    ├── parking.Retry                       a handler raises it: again at the time it names
    ├── parking.HandlerTimeoutError (TimeoutError)
    │                                       a handler did not end in time: a failed attempt
    ├── parking.FunctionExitError           a function beside the handler exited: a failed attempt
    ├── parking.HandlerNotRunError          a handler returned without running: a failed attempt
    ├── parking.RedeliveryWantedError       a handler asked for redelivery: a failed attempt
    ├── parking.MalformedMessageError       the headers of a parked message cannot be read
    ├── forwarding.UnreadableCallError      a message in a queue of calls is no call
    ├── forwarding.UnreadableOutcomeError   a message in a queue of outcomes is no outcome
    ├── forwarding.ChannelClosedError       the channel was closed during a replay
    ├── forwarding.NotQueuedError           a call may not be queued: by `when=` or `max_waiting=`
    ├── idempotency.MissingTableError       the table of the keys is not there
    └── idempotency.NoTransactionError (RuntimeError)
                                            `current` was called outside of a handler's transaction

Those without a room's name are in this module; the others are in the room that raises them. A few
more classes derive from these inside the rooms. They reach no user and are stored nowhere.

This module lies beneath the rooms: all of them may import it, and it imports none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Self

    import grpc

__all__ = [
    "BrokerError",
    "BrokerUnavailableError",
    "CallError",
    "CircuitBreakerError",
    "CircuitOpenError",
    "DeliveryLostError",
    "FailedResultError",
    "FusewireError",
    "MoveRefusedError",
    "QueueNotFoundError",
    "SettingsError",
    "UnconfirmedError",
]


@dataclass(frozen=True, slots=True)
class CallError:
    """How a call failed, in words: a value, and no exception.

    Attributes:
        type: the type of the error, with its module: ``"grpc.RpcError"``, ``"ConnectionError"``.
        status: the name of its status, if it has one: ``"UNAVAILABLE"``.
        message: its text. Only the log shows it, and only if the settings have ``log_messages``.

    Raises:
        SettingsError: one of them is no string.
    """

    type: str
    status: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        values: dict[str, object] = {
            "type": self.type,
            "status": self.status,
            "message": self.message,
        }
        for name, value in values.items():
            if not isinstance(value, str):
                raise SettingsError(f"{name} must be a string, got {value!r}")


NO_ERROR = CallError("")
"""What is known of an error that nobody has named."""


class FusewireError(Exception):
    """The root of all errors that Fusewire raises on purpose."""


class SettingsError(FusewireError, ValueError):
    """A setting cannot be right. The message names it, its value, and what is accepted."""


class CircuitBreakerError(FusewireError):
    """The root of a circuit breaker's own errors."""


class CircuitOpenError(CircuitBreakerError):
    """The circuit rejected the call, so nothing was sent.

    Attributes:
        name: the breaker's name.
        state: the state that rejected the call, for example ``"open"``.
        retry_after: seconds until the circuit may admit a call, as far as is known now; never
            negative. For a circuit that was forced open it is the recovery timeout, because only a
            person knows when that ends.
        reason: why the circuit opened, in words; empty if that is not known.
    """

    # The parent's __init__ is not called: a rejection is the hot path of an outage, and pickling,
    # which needs what the parent would keep, has __reduce__.
    def __init__(
        self,
        name: str,
        state: str,
        retry_after: float,
        reason: str = "",
        last_error: CallError = NO_ERROR,
    ) -> None:
        self.name = name
        self.state = state
        self.retry_after = retry_after
        self.reason = reason
        self._last_error = last_error

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, float, str], dict[str, Any]]:
        # Of the error, strings only: a release that does not know of it keeps them and looks at
        # none.
        arguments = (self.name, self.state, self.retry_after, self.reason)
        error = {"error_type": self.error_type, "error_status": self.error_status}
        return type(self), arguments, error

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        others = dict(state or {})
        self._last_error = CallError(others.pop("error_type", ""), others.pop("error_status", ""))
        super().__setstate__(others)

    @property
    def error_type(self) -> str:
        """The type of the last failure's error, such as ``"grpc.RpcError"``; empty if not known.

        The error itself is another caller's.
        """
        return self._last_error.type

    @property
    def error_status(self) -> str:
        """The name of its status, such as ``"UNAVAILABLE"``; empty if it has none."""
        return self._last_error.status

    @property
    def ends_by_itself(self) -> bool:
        """Whether the circuit may admit calls again on its own: not if it was forced open."""
        return self.state != "forced_open"

    def code(self) -> grpc.StatusCode:
        """Return UNAVAILABLE, the status of a gRPC call that the circuit rejected.

        Around a gRPC call, this error is a ``grpc.RpcError`` too, with trailing metadata.
        """
        import grpc  # noqa: PLC0415 - a program that guards functions only does not load it

        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """Return the sentence that names the breaker and the seconds to wait."""
        return str(self)

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        until = f"; retry in {self.retry_after:.3g} s" if self.ends_by_itself else " until set back"
        return f"circuit {self.name!r} is {self.state}{why}{until}"


class FailedResultError(CircuitBreakerError):
    """A call returned a result that is a failure. A fallback that takes the error is given this.

    It is not raised: without a fallback the caller gets the result.

    Attributes:
        name: the breaker's name.
        result: what the call returned. The text of the error does not show it.
    """

    def __init__(self, name: str, result: object) -> None:
        super().__init__(name, result)
        self.name = name
        self.result = result

    def __str__(self) -> str:
        return f"circuit {self.name!r} takes the result of its call for a failure"


class BrokerError(FusewireError):
    """The root of the errors of parking storage.

    Attributes:
        logged: whether the broker has logged the cause itself, once for everything that it stopped.
    """

    logged = False


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached, or the connection was lost. Nothing was stored."""


class UnconfirmedError(BrokerError):
    """A message was sent and its confirmation did not come: it may or may not have been stored."""


class QueueNotFoundError(BrokerError):
    """A queue that must exist does not. The message says what creates it."""


class MoveRefusedError(BrokerError):
    """The target queue did not take the message (missing, full, or refused by the broker).

    The message is still where it was.
    """


class DeliveryLostError(BrokerError):
    """The delivery can no longer be settled: the broker has taken it back, and redelivers it."""
