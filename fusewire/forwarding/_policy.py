"""What may be queued of one method, and how: the one place where that is said."""

from __future__ import annotations

import functools
from collections.abc import Callable  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import grpc

from fusewire._validation import (
    SECONDS,
    Rule,
    check,
    check_callable,
    check_plain_function,
    check_text,
    invalid,
)
from fusewire.errors import SettingsError
from fusewire.forwarding._receipt import Receipt  # noqa: TC001 - see fusewire/_public.py
from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

_Response = TypeVar("_Response")

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})

_ANSWERS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""Statuses by which the server speaks of the work, and not about its own state."""

_DONE_ON = Rule(
    f"grpc.StatusCode members of {', '.join(sorted(code.name for code in _ANSWERS))}",
    lambda codes: isinstance(codes, set | frozenset | tuple | list) and _ANSWERS.issuperset(codes),
)
_CLASS = Rule("a class of messages", lambda value: isinstance(value, type))


@dataclass(frozen=True, init=False, slots=True)
class ParkPolicy:
    """What may be queued of one method, and how. Exactly one of the two promises is given.

    Args:
        response: the class of the method's responses, for :class:`Outcome.reply`. Without it the
            class is looked up by the method's name, once its generated code was imported.
        reply: a function (request, receipt) that makes the response of a call that is parked in
            place of a failure, PENDING for example; a coroutine function on asyncio channels only.
            It runs after the broker's confirm. Only fallbacks need it.
        idempotent: the server honors the operation id, which it gets as ``idempotency-key`` from
            the first attempt on. Calls that were rejected and calls that failed are parked.
        at_most_once: it does not. Only calls that our own circuit rejected are parked, and a replay
            whose end is in doubt goes to the dead queue as ``ambiguous``.
        window: seconds for which a foreign server knows a key. A call that was first sent longer
            ago than 95 % of that is not sent again, and is dead as ``stale-key``. A server with
            :mod:`fusewire.idempotency` checks that by itself.
        done_on: statuses by which a foreign server says that the call was made before,
            ``{ALREADY_EXISTS}`` for example. A replay that ends so is done.
        probe_timeout: seconds for a replay that probes a circuit which is not closed, where its own
            deadline is later: a server that hangs is then noticed sooner. A forwarder goes by those
            of its own `methods`. Only for idempotent methods, because what is cut off may have been
            made.
        when: a function of the request that returns whether it may be queued, by its amount for
            example. Where it may not, callers get the original error.
        metadata: keys of metadata to store with a call; credentials are refused.
        expires_after: seconds after which a call is not made any more; never by default.
        breaker: the name of the breaker that guards the method, for calls that are submitted; by
            default the method's path, as with guards that have one breaker for each method.
        serializer: makes bytes of a request that is no protobuf message.

    Raises:
        SettingsError: neither or both promises are given, or a value cannot be right.
    """

    response: type[Any] | None
    reply: Callable[[Any, Receipt], Any] | None
    idempotent: bool
    at_most_once: bool
    window: float | None
    done_on: frozenset[grpc.StatusCode]
    probe_timeout: float | None
    when: Callable[[Any], bool] | None
    metadata: frozenset[str]
    expires_after: float | None
    breaker: str | None
    serializer: Callable[[Any], bytes] | None

    @overload
    def __init__(
        self,
        *,
        response: type[_Response] | None = None,
        reply: Callable[[Any, Receipt], _Response | Awaitable[_Response]] | None = None,
        idempotent: Literal[True],
        at_most_once: Literal[False] = False,
        window: float | None = None,
        done_on: Collection[grpc.StatusCode] = (),
        probe_timeout: float | None = None,
        when: Callable[[Any], bool] | None = None,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        breaker: str | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        response: type[_Response] | None = None,
        reply: Callable[[Any, Receipt], _Response | Awaitable[_Response]] | None = None,
        idempotent: Literal[False] = False,
        at_most_once: Literal[True],
        when: Callable[[Any], bool] | None = None,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        breaker: str | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> None: ...

    def __init__(
        self,
        *,
        response: type[Any] | None = None,
        reply: Callable[[Any, Receipt], Any] | None = None,
        idempotent: bool = False,
        at_most_once: bool = False,
        window: float | None = None,
        done_on: Collection[grpc.StatusCode] = (),
        probe_timeout: float | None = None,
        when: Callable[[Any], bool] | None = None,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        breaker: str | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> None:
        _check_promise(idempotent=idempotent, at_most_once=at_most_once)
        check("response", response, _CLASS.or_none)
        if reply is not None:
            # The one function that may be a class: its work is to make an object.
            makes = functools.partial(reply) if isinstance(reply, type) else reply
            check_callable("reply", makes, "a request", "its receipt")
        check("window", window, SECONDS.or_none)
        check("done_on", done_on, _DONE_ON)
        check("probe_timeout", probe_timeout, SECONDS.or_none)
        if at_most_once and (window is not None or done_on or probe_timeout is not None):
            raise SettingsError(
                "window, done_on and probe_timeout are for idempotent=True only: what is sent at "
                "most once is never sent again"
            )
        if when is not None:
            check_plain_function("when", when, "a request")
        check("expires_after", expires_after, SECONDS.or_none)
        if breaker is not None:
            check_text("breaker", breaker)
        values = {
            "response": response,
            "reply": reply,
            "idempotent": bool(idempotent),
            "at_most_once": bool(at_most_once),
            "window": window,
            "done_on": frozenset(done_on),
            "probe_timeout": probe_timeout,
            "when": when,
            "metadata": _allowed(metadata),
            "expires_after": expires_after,
            "breaker": breaker,
            "serializer": serializer,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _check_promise(*, idempotent: bool, at_most_once: bool) -> None:
    if bool(idempotent) == bool(at_most_once):
        raise SettingsError(
            "what may be queued must be given one of idempotent=True, if the server honors the "
            f"operation id in its {IDEMPOTENCY_KEY!r} metadata, and at_most_once=True, if it does "
            f"not, got {'both' if idempotent else 'neither'}"
        )


def check_stored_key(key: str) -> None:
    """Refuse a key of metadata that must not be stored.

    Raises:
        SettingsError: it holds credentials, or is gRPC's own.
    """
    if key in _CREDENTIALS or key.startswith("grpc-"):
        raise invalid(
            "each key in metadata",
            "one that may be stored",
            key,
            "credentials come fresh from the channel when the call is replayed, and grpc- is "
            "gRPC's own",
        )


def _allowed(keys: Collection[str]) -> frozenset[str]:
    if isinstance(keys, str):
        raise invalid("metadata", "a list of keys", keys, f"write [{keys!r}]")
    allowed = frozenset(key.lower() for key in keys)
    for key in allowed:
        check_stored_key(key)
    return allowed - {IDEMPOTENCY_KEY, FIRST_SENT_METADATA}
