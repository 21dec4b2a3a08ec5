"""Asyncio channels: the interceptors that guard their methods.

They go to the channel's constructor, one object for each shape of call: grpcio registers an
object of several shapes for the first one only (https://github.com/grpc/grpc/issues/31442).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire._sendable import is_valid_metadata
from fusewire.interceptors._aio.call import WatchedStreamUnary, WatchedUnaryUnary
from fusewire.interceptors._aio.completion import settle_raised, watch
from fusewire.interceptors._aio.rejected import AioRejectedCall, AioUnsentCall
from fusewire.interceptors._aio.stream import WatchedStreamStream, WatchedUnaryStream
from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._policy import Policies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors._arguments import (
        BreakerPer,
        ClassifyBySelector,
        SettingsBySelector,
        StreamsBySelector,
    )
    from fusewire.interceptors._fallback import Fallback
    from fusewire.interceptors._health import HealthProbe
    from fusewire.interceptors._methods import Shape
    from fusewire.interceptors._policy import MethodPolicy


def aio_interceptors(
    settings: SettingsBySelector = None,
    *,
    dependency: str | None = None,
    registry: BreakerRegistry | None = None,
    fallbacks: Mapping[str, Fallback | None] | None = None,
    classify: ClassifyBySelector = None,
    idempotent: Collection[str] = (),
    streams: StreamsBySelector = "end",
    breaker_per: BreakerPer = "method",
    health: HealthProbe | None = None,
) -> list[grpc.aio.ClientInterceptor]:
    """Make the interceptors that put a circuit breaker on every method of an asyncio channel.

    Give the list to the channel's constructor: ``grpc.aio.insecure_channel(target,
    interceptors=aio_interceptors())``. The arguments are those of
    :func:`~fusewire.interceptors.guard`; here a fallback may be a coroutine function too, or, for
    a stream, an async generator function.

    Raises:
        SettingsError: a setting cannot be right; the message names it and what would be accepted.
    """
    policies = Policies(
        settings,
        dependency=dependency,
        registry=registry,
        fallbacks=fallbacks,
        classify=classify,
        idempotent=idempotent,
        streams=streams,
        breaker_per=breaker_per,
        health=health,
        sync=False,
    )
    return [
        _UnaryUnaryGuard(policies),
        _UnaryStreamGuard(policies),
        _StreamUnaryGuard(policies),
        _StreamStreamGuard(policies),
    ]


class _Guard:
    """What the guards of the shapes have in common."""

    shape: Shape
    serialize: Callable[[Any], bytes] | None = None  # grpcio does not tell interceptors

    def __init__(self, policies: Policies) -> None:
        self.policies = policies

    def _look(self, details: Any) -> tuple[MethodPolicy | None, Any]:
        """Return how a call is guarded, and its details with metadata that can be read again.

        The policy is None for a call that is not guarded, or that grpcio will not send.
        """
        policy = self.policies.of(details.method, self.shape)
        if policy is None:
            return None, details
        if details.metadata:
            details = _with_lasting_metadata(details)
            if not is_valid_metadata(details.metadata):
                return None, details
        return policy, details


class _UnaryGuard(_Guard):
    """Guards calls whose response is one message."""

    wrapper: type[WatchedUnaryUnary | WatchedStreamUnary]

    async def _intercept(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        policy, details = self._look(details)
        if policy is None:
            return await continuation(details, request)
        guarded = GuardedCall(policy, details.metadata, details.timeout, request, self)
        request = guarded.request
        refused = guarded.admit()
        if refused is not None:
            rejected = AioRejectedCall.of(refused)
            if guarded.fallback is None:
                raise rejected
            return self.wrapper(AioUnsentCall(rejected), guarded)
        try:
            if not guarded.as_it_is:
                details = _amended(details, guarded)
            if _is_innermost(continuation):
                call = await continuation(details, request)
            else:
                with guarded.lending():
                    call = await continuation(details, request)
        except BaseException as error:
            settle_raised(guarded, error)
            raise
        if guarded.fallback is None:
            watch(guarded, call)
            return call
        return self.wrapper(call, guarded)


class _StreamGuard(_Guard):
    """Guards calls whose response is a stream."""

    wrapper: type[WatchedUnaryStream | WatchedStreamStream]

    async def _intercept(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        policy, details = self._look(details)
        if policy is None:
            return await continuation(details, request)
        guarded = GuardedCall(policy, details.metadata, details.timeout, request, self)
        request = guarded.request
        refused = guarded.admit()
        if refused is not None:
            rejected = AioRejectedCall.of(refused)
            if guarded.fallback is None:
                raise rejected
            return self.wrapper(AioUnsentCall(rejected), guarded)
        try:
            if not guarded.as_it_is:
                details = _amended(details, guarded)
            if _is_innermost(continuation):
                call = await continuation(details, request)
            else:
                with guarded.lending():
                    call = await continuation(details, request)
        except BaseException as error:
            settle_raised(guarded, error)
            raise
        if guarded.fallback is None and not policy.until_first_message:
            watch(guarded, call)
            return call
        return self.wrapper(call, guarded)


class _UnaryUnaryGuard(_UnaryGuard, grpc.aio.UnaryUnaryClientInterceptor):
    """Guards unary-unary calls."""

    shape = "unary_unary"
    wrapper = WatchedUnaryUnary
    # Any, because messages are of any type.
    intercept_unary_unary = _UnaryGuard._intercept  # type: ignore[assignment]  # noqa: SLF001 - of this module


class _StreamUnaryGuard(_UnaryGuard, grpc.aio.StreamUnaryClientInterceptor):
    """Guards stream-unary calls."""

    shape = "stream_unary"
    wrapper = WatchedStreamUnary
    # Any, because messages are of any type.
    intercept_stream_unary = _UnaryGuard._intercept  # type: ignore[assignment]  # noqa: SLF001 - of this module


class _UnaryStreamGuard(_StreamGuard, grpc.aio.UnaryStreamClientInterceptor):
    """Guards unary-stream calls."""

    shape = "unary_stream"
    wrapper = WatchedUnaryStream
    # Any, because messages are of any type.
    intercept_unary_stream = _StreamGuard._intercept  # type: ignore[assignment]  # noqa: SLF001 - of this module


class _StreamStreamGuard(_StreamGuard, grpc.aio.StreamStreamClientInterceptor):
    """Guards stream-stream calls."""

    shape = "stream_stream"
    wrapper = WatchedStreamStream
    # Any, because messages are of any type.
    intercept_stream_stream = _StreamGuard._intercept  # type: ignore[assignment]  # noqa: SLF001 - of this module


def _is_innermost(continuation: Any) -> bool:
    """Return whether `continuation` runs no other interceptor, so that there is nobody to lend to.

    grpcio binds the interceptors that are left to it. If another grpcio does not, the permit is
    lent in vain, which takes a sixth of what the guard adds to a call.
    """
    bound: tuple[object, ...] = getattr(continuation, "args", ())
    return bool(bound) and bound[0] == []


def _with_lasting_metadata(details: Any) -> Any:
    """Return `details` with metadata that can be read more than once.

    grpcio takes any iterable and reads it once, when it sends. What is not a sequence may be used
    up by that: a generator, for example.
    """
    if isinstance(details.metadata, grpc.aio.Metadata | tuple | list):
        return details
    return _details(details, tuple(details.metadata), details.wait_for_ready)


def _amended(details: Any, guarded: GuardedCall) -> Any:
    """Make the details of a call as its guard wants them."""
    metadata = details.metadata
    if guarded.metadata is not None:
        as_given = isinstance(metadata, tuple)  # grpc.aio.Metadata may change their order
        metadata = guarded.metadata if as_given else grpc.aio.Metadata(*guarded.metadata)
    return _details(details, metadata, guarded.wait_for_ready(details.wait_for_ready))


def _details(details: Any, metadata: Any, wait_for_ready: bool | None) -> Any:  # noqa: FBT001 - grpcio's own flag
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, wait_for_ready
    )
