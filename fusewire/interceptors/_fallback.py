"""Fallbacks: what answers a call in the dependency's place.

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

from fusewire._causes import causes_of
from fusewire._validation import invalid, name_of, signature_problem
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
        began: when it was made, in monotonic seconds; None if that is not known.
    """

    method: str
    breaker: str
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float | None
    began: float | None = None


@runtime_checkable
class CallFallback(Protocol):
    """A fallback that takes part from the start, as store-and-forward does."""

    def prepare(self, call: CallInfo) -> CallInfo:
        """Return `call`, which may be changed to have other metadata, before its first attempt.

        It runs where the call is made, so it must not block and must do no I/O. If it raises, the
        call goes on unchanged, without this fallback.
        """

    async def reply(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Return the response message of a call on an asyncio channel.

        Args:
            call: what :meth:`prepare` returned.
            request: the request message, as the user passed it.
            error: the rejection or the failure.

        Raises:
            FallbackDeclined: the caller gets `error`.
        """

    def reply_sync(self, call: CallInfo, request: Any, error: grpc.RpcError) -> Any:
        """Do the same on a sync channel. It may block: no thread of grpcio's runs it."""


@runtime_checkable
class SelectiveFallback(CallFallback, Protocol):
    """A fallback that can only answer calls of some shapes."""

    def unfit(self, *, sync: bool, shape: Shape | None) -> str | None:
        """Return why it cannot answer calls of a shape; None if it can.

        Settings that name such a method are refused; a pattern skips it.

        Args:
            sync: whether the calls are on a sync channel.
            shape: their shape; None while it is not known.
        """


@runtime_checkable
class ProbeLeavingFallback(CallFallback, Protocol):
    """A fallback that may answer a call that would be a probe, because others make the probes."""

    def leaves_probe(self, breaker: str, generation: int) -> bool:
        """Return whether to answer the call in its place, as if the circuit had rejected it.

        It runs where the call is made, so it must not block and must do no I/O.

        Args:
            breaker: the name of the breaker.
            generation: another number for each time that its circuit is half open.
        """


Fallback: TypeAlias = CallFallback | Callable[[Any, "grpc.RpcError"], Any] | object
"""A :class:`CallFallback`, a function of (request, error), or a response message.

If the response is a stream, an iterable of messages takes the message's place. If the requests are
a stream, the request is their iterator, of which some may have been taken. On asyncio channels a
function may be a coroutine function or an async generator function."""


class FallbackDeclined(FusewireError):  # noqa: N818 - a decision, not an error
    """A fallback raises it to leave the caller the original error.

    Attributes:
        metadata: pairs to add to the error's trailing metadata.
    """

    def __init__(
        self, reason: str = "", *, metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.metadata = metadata


class _Message:
    """The same response message for every call, copied for each caller."""

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
            raise TypeError(
                "a fallback on a sync channel must return a response, got a coroutine from "
                f"{self._function!r}"
            )
        check_reply(call.method, answer)
        return answer


def as_call_fallback(selector: str, fallback: Fallback, *, sync: bool) -> CallFallback:
    """Return what a user passed in one of the three forms as a :class:`CallFallback`.

    Raises:
        SettingsError: it cannot answer calls, or not those of a channel of this kind.
    """
    if isinstance(fallback, CallFallback) and not isinstance(fallback, type):
        reason = unfit(fallback, sync=sync, shape=None)
        if reason is not None:
            raise refusal(selector, reason)
        return fallback
    if callable(fallback):
        _check_function(place("fallbacks", selector), fallback, sync=sync)
        return _Function(fallback)
    _check_message(selector, fallback)
    return _Message(fallback)


def unfit(fallback: CallFallback, *, sync: bool, shape: Shape | None) -> str | None:
    """Return why `fallback` cannot answer calls of `shape`; None if it can."""
    if isinstance(fallback, SelectiveFallback):
        return fallback.unfit(sync=sync, shape=shape)
    return None


def refusal(selector: str, reason: str) -> SettingsError:
    """Return the error for a fallback that a method cannot have."""
    return SettingsError(f"{place('fallbacks', selector)}: {reason}")


def _check_message(selector: str, given: object) -> None:
    name = place("fallbacks", selector)
    if inspect.iscoroutine(given):
        given.close()
        raise invalid(name, _ACCEPTED, given, "give the coroutine function itself")
    if callable(getattr(given, "park", None)):
        hint = "give what its park() returns: park(reply=…, idempotent=True), for example"
        raise invalid(name, _ACCEPTED, given, hint)
    try:
        check_reply(selector, given)
    except TypeError as error:
        raise refusal(selector, str(error)) from None


def _check_function(name: str, given: Callable[..., Any], *, sync: bool) -> None:
    if isinstance(given, type) and issubclass(given, Message):
        raise invalid(name, _ACCEPTED, given, "a class of messages is neither")
    if sync and (_is_async(given) or _is_async(type(given).__call__)):
        hint = "a sync channel cannot run a coroutine function"
        raise invalid(name, "a message, a plain function or a CallFallback", given, hint)
    if (problem := signature_problem(given, 2)) is not None:
        raise SettingsError(
            f"{name} must be a function of (request, error), got {name_of(given)}, which cannot "
            f"be called so: {problem}"
        )


_ACCEPTED = "a message or a function of (request, error)"


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def as_messages(given: Any) -> Any:
    """Return the messages that a stream's fallback returned, copied if other callers get them too.

    What a generator yields, plain or asynchronous, is this caller's alone.

    Raises:
        TypeError: it is no iterable of messages.
    """
    if isinstance(given, str | bytes):
        raise TypeError(f"a stream's fallback must return an iterable of messages, got {given!r}")
    if isinstance(given, GeneratorType | AsyncIterable):
        return given
    return map(_copied, given)


def chain_cause(error: BaseException, reason: Exception) -> None:
    """Make `reason`, which a fallback raised, the cause of `error`, as ``raise … from`` does.

    It is set here because the same error is raised wherever its user looks, and a context is lost
    if the user is handling another error. A fallback may ``raise … from error`` itself. Such a link
    is cut: code that follows causes would never leave the circle.
    """
    if reason is error:
        return
    for each in causes_of(reason):
        if each.__cause__ is error:
            each.__cause__ = None
        if each.__context__ is error:
            each.__context__ = None
    error.__context__ = error.__cause__ = reason
    error.add_note(f"The fallback failed too: {reason!r}")


def _copied(message: Any) -> Any:
    """Copy a protobuf message, because its receiver may change it; return others as they are."""
    return copy.deepcopy(message) if isinstance(message, Message) else message
