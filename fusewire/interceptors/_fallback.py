"""Fallbacks: what answers a call in the dependency's place, and what a fallback is told.

A fallback is a response message, a function of ``(request, error)`` that makes one, or an object of
the :class:`CallFallback` protocol, which also sees the call before its first attempt.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from google.protobuf.message import Message

from fusewire._validation import name_of, signature_problem
from fusewire.errors import FusewireError, SettingsError
from fusewire.interceptors._methods import check_reply
from fusewire.interceptors._selectors import place

if TYPE_CHECKING:
    import grpc

    from fusewire.interceptors._methods import Shape

FALLBACK_METADATA = "fusewire-fallback"
"""Trailing metadata of a call that a fallback answered; its value is the breaker's name."""


@dataclass(frozen=True, slots=True)
class CallInfo:
    """A call as the user made it, before it was sent.

    Attributes:
        method: the method's path, ``/pkg.Service/Method``.
        breaker: the name of the breaker that guards it.
        metadata: the metadata that will be sent.
        timeout: the seconds that the user gave it, None without a deadline.
    """

    method: str
    breaker: str
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float | None


@runtime_checkable
class CallFallback(Protocol):
    """A fallback that takes part from the start, as store-and-forward does."""

    def prepare(self, call: CallInfo) -> CallInfo:
        """Look at the call before its first attempt; what is returned may have other metadata.

        It runs where the call is made: it must not block and must do no I/O. If it raises, the call
        goes on as it was, without this fallback.
        """

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Make the response message of a call on an asyncio channel.

        Args:
            call: what :meth:`prepare` returned.
            request: the request message, as the user gave it.
            error: the rejection or the failure.

        Raises:
            FallbackDeclined: the caller is to see `error`.
        """

    def reply_sync(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Do the same on a sync channel. It may block: it never runs in a thread of grpcio's."""


@runtime_checkable
class SelectiveFallback(CallFallback, Protocol):
    """A fallback that cannot answer every call, and says which."""

    def unfit(self, *, sync: bool, shape: Shape | None) -> str | None:
        """Return why it cannot answer calls of a shape, None if it can.

        An exact name of such a method is refused; a pattern passes it by.

        Args:
            sync: whether they are made on a sync channel.
            shape: theirs, None while it is not known.
        """


Fallback: TypeAlias = CallFallback | Callable[[Any, "grpc.RpcError"], Any] | object
"""A :class:`CallFallback`, a function of (request, error), or a response message.

Where the response is a stream, an iterable of messages takes the message's place. The request of a
method whose requests are a stream is the iterator of them, of which some may have been taken. On
asyncio channels a function may be a coroutine function or an async generator function."""


class FallbackDeclined(FusewireError):  # noqa: N818 - a decision, not an error; so named by its users
    """Raised by a fallback to leave the original error as it is.

    Attributes:
        metadata: pairs that are added to the error's trailing metadata.
    """

    def __init__(
        self, reason: str = "", *, metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.metadata = metadata


class _Message:
    """The same response message every time, to each caller as a copy of its own."""

    def __init__(self, message: object) -> None:
        self._message = message

    def prepare(self, call: CallInfo) -> CallInfo:
        return call

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        return self.reply_sync(call, request, error)

    def reply_sync(self, call: CallInfo, _request: Any, _error: grpc.RpcError) -> Any:
        check_reply(call.method, self._message)
        return _copied(self._message)


class _Function:
    """A function of (request, error)."""

    def __init__(self, function: Callable[[Any, grpc.RpcError], Any]) -> None:
        self._function = function

    def prepare(self, call: CallInfo) -> CallInfo:
        return call

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        answer = self._function(request, error)
        answer = await answer if inspect.isawaitable(answer) else answer
        check_reply(call.method, answer)
        return answer

    def reply_sync(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        answer = self._function(request, error)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError(f"fallback {self._function!r} gave a coroutine on a sync channel")
        check_reply(call.method, answer)
        return answer


def as_call_fallback(selector: str, fallback: Fallback, *, sync: bool) -> CallFallback:
    """Make the one form that the interceptors work with from the three that users give.

    Raises:
        SettingsError: it cannot answer calls, or not those of such a channel.
    """
    if isinstance(fallback, CallFallback) and not isinstance(fallback, type):
        _refuse(selector, unfit(fallback, sync=sync, shape=None))
        made = fallback
    elif not callable(fallback):
        made = _Message(fallback)
        _refuse(selector, _no_message(selector, fallback))
    else:
        made = _Function(fallback)
        _refuse(selector, _no_function(fallback, sync=sync))
    return made


def unfit(fallback: CallFallback, *, sync: bool, shape: Shape | None) -> str | None:
    """Return why `fallback` cannot answer calls of `shape`, None if it can."""
    if isinstance(fallback, SelectiveFallback):
        return fallback.unfit(sync=sync, shape=shape)
    return None


def refusal(selector: str, reason: str) -> SettingsError:
    """Make the error that says why a method cannot have its fallback."""
    return SettingsError(f"{place('fallbacks', selector)}: {reason}")


def _refuse(selector: str, reason: str | None) -> None:
    if reason is not None:
        raise refusal(selector, reason)


def _no_message(selector: str, given: object) -> str | None:
    if inspect.iscoroutine(given):
        given.close()
        return f"{given!r} is a coroutine; give the coroutine function itself"
    if callable(getattr(given, "park", None)):
        return (
            f"{type(given).__name__} would be given to callers as the reply; give what its park() "
            "returns: park(reply=…, idempotent=True), for example"
        )
    try:
        check_reply(selector, given)
    except TypeError as error:
        return str(error)
    return None


def _no_function(given: Callable[..., Any], *, sync: bool) -> str | None:
    if isinstance(given, type) and issubclass(given, Message):
        return f"{given.__name__} is a class of messages; give a message or a function"
    if sync and (_is_async(given) or _is_async(type(given).__call__)):
        return (
            f"{given!r} is a coroutine function, which a sync channel cannot run; give a message, "
            "a plain function or a CallFallback"
        )
    if (problem := signature_problem(given, 2)) is not None:
        return f"it must be callable as (request, error), got {name_of(given)}: {problem}"
    return None


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def as_messages(given: Any) -> Any:
    """Return what a stream's fallback gave, of what is kept for other callers only copies.

    What a generator yields, plain or asynchronous, is this caller's own as it is.

    Raises:
        TypeError: it is one message, and not several.
    """
    if isinstance(given, str | bytes):
        raise TypeError(f"a stream's fallback gave {given!r}; it must give an iterable of messages")
    if isinstance(given, GeneratorType | AsyncIterable):
        return given
    return map(_copied, given)


def chain_cause(error: BaseException, reason: Exception) -> None:
    """Make `reason`, with which a fallback failed, the cause of `error`, as ``raise … from`` does.

    It is set, and not left to the raising: the same error is raised wherever its user looks, and a
    context is lost where the user is handling another error. A fallback may say ``raise … from
    error`` too. Then its link is cut, because code that follows causes would never leave a circle.
    """
    if reason is error:
        return
    seen: set[int] = set()
    waiting: list[BaseException | None] = [reason]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if current.__cause__ is error:
            current.__cause__ = None
        if current.__context__ is error:
            current.__context__ = None
        waiting += [current.__cause__, current.__context__]
    error.__context__ = error.__cause__ = reason
    error.add_note(f"The fallback failed too: {reason!r}")


def _copied(message: Any) -> Any:
    """Copy a protobuf message, which its receiver may change; anything else is given as it is."""
    return copy.deepcopy(message) if isinstance(message, Message) else message
