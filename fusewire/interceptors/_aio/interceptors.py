"""Asyncio channels: the interceptors that guard their methods.

They go to the channel's constructor, one object for each shape of call: grpcio registers an
object of several shapes for the first one only (https://github.com/grpc/grpc/issues/31442).
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import grpc.aio

from fusewire._sendable import is_valid_metadata
from fusewire.errors import CircuitOpenError
from fusewire.interceptors._aio.call import WatchedStreamUnary, WatchedUnaryUnary
from fusewire.interceptors._aio.completion import (
    settle_plain_at_end,
    settle_raised,
    watch,
    when_over,
)
from fusewire.interceptors._aio.rejected import AioRejectedCall, AioUnsentCall
from fusewire.interceptors._aio.stream import WatchedStreamStream, WatchedUnaryStream
from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._policy import Policies
from fusewire.interceptors._replays import is_replay, marked_if_valid
from fusewire.operation import entered_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors._arguments import (
        BreakerPer,
        ClassifyBySelector,
        SettingsBySelector,
        StreamsBySelector,
    )
    from fusewire.interceptors._call import Pairs
    from fusewire.interceptors._fallback import Fallback
    from fusewire.interceptors._health import HealthProbe
    from fusewire.interceptors._methods import Shape
    from fusewire.interceptors._policy import MethodPolicy

    _Continuation = Callable[[Any, Any], Awaitable[Any]]


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

    Pass the list to the channel's constructor: ``grpc.aio.insecure_channel(target,
    interceptors=aio_interceptors())``. The arguments are those of
    :func:`~fusewire.interceptors.guard`. Here a fallback may also be a coroutine function or, for a
    stream, an async generator function.

    Raises:
        SettingsError: a setting is wrong; the message names it and what is accepted.
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
        _UnaryUnaryInterceptor(policies),
        _UnaryStreamInterceptor(policies),
        _StreamUnaryInterceptor(policies),
        _StreamStreamInterceptor(policies),
    ]


class _Interceptor:
    """Guards calls of one shape."""

    shape: Shape
    wrapper: type[WatchedUnaryUnary | WatchedStreamUnary | WatchedUnaryStream | WatchedStreamStream]
    serialize: Callable[[Any], bytes] | None = None  # grpcio does not show it to interceptors

    def __init__(self, policies: Policies) -> None:
        self.policies = policies

    async def intercept(self, continuation: _Continuation, details: Any, request: Any) -> Any:
        policy = self.policies.of(details.method, self.shape)
        if details.metadata and policy is not None:
            details = _with_lasting_metadata(details)
            policy = _if_sendable(details.metadata, policy)
        if policy is None:
            return await continuation(_marked(details) if is_replay() else details, request)
        breaker = policy.breaker
        bound = getattr(continuation, "args", None)  # see _is_innermost
        plain = policy.plain and bound and bound[0] == [] and entered_operation() is None
        if breaker is None or not plain:
            return await self._make(policy, continuation, details, request)
        # Most calls need a permit, and nothing else unless they fail. A function of Python costs
        # such a call about a microsecond, so few are called here: see decision 243.
        rejected = None
        try:
            permit = breaker.acquire(timed=policy.timed)
        except CircuitOpenError as refused:
            rejected = AioRejectedCall.of(refused)
        if rejected is not None:
            raise rejected  # here, so that the refusal is not its context
        if getattr(breaker, "durations", None) is not None:  # see GuardedCall.admit
            permit.measured_as = (policy.method, None)
        began = time.monotonic()
        try:
            if permit.probe:
                probe = GuardedCall(policy, details.timeout, permit=permit)
                waits = probe.wait_for_ready(details.wait_for_ready)
                details = _details(details, details.metadata, waits)
            call = await continuation(details, request)
        except BaseException as error:
            settle_raised(GuardedCall(policy, details.timeout, permit=permit, began=began), error)
            raise
        settle_it = functools.partial(
            settle_plain_at_end, permit, policy, details.timeout, began, [], call
        )
        try:
            call._cython_call.add_done_callback(settle_it)  # noqa: SLF001 - as watch() does
        except AttributeError:
            when_over(call, lambda _: settle_it())
        return call

    async def _make(
        self, policy: MethodPolicy, continuation: _Continuation, details: Any, request: Any
    ) -> Any:
        """Make a call that may need more than a permit."""
        guarded = GuardedCall.of(policy, details.metadata, details.timeout, request, self)
        refused = guarded.admit()
        if refused is not None:
            rejected = AioRejectedCall.of(refused)
            if guarded.fallback is None:
                raise rejected
            return self.wrapper(AioUnsentCall(rejected), guarded)
        try:
            if not guarded.unchanged:
                details = _amended(details, guarded)
            if _is_innermost(continuation):
                call = await continuation(details, guarded.request)
            else:
                with guarded.lending():
                    call = await continuation(details, guarded.request)
        except BaseException as error:
            settle_raised(guarded, error)
            raise
        if guarded.fallback is None and not policy.until_first_message:
            watch(guarded, call)
            return call
        return self.wrapper(call, guarded)


# grpcio declares a generic method for each shape; here messages are of any type.


class _UnaryUnaryInterceptor(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    """Guards unary-unary calls."""

    shape = "unary_unary"
    wrapper = WatchedUnaryUnary
    intercept_unary_unary = _Interceptor.intercept  # type: ignore[assignment] # see above


class _StreamUnaryInterceptor(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    """Guards stream-unary calls."""

    shape = "stream_unary"
    wrapper = WatchedStreamUnary
    intercept_stream_unary = _Interceptor.intercept  # type: ignore[assignment] # see above


class _UnaryStreamInterceptor(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    """Guards unary-stream calls."""

    shape = "unary_stream"
    wrapper = WatchedUnaryStream
    intercept_unary_stream = _Interceptor.intercept  # type: ignore[assignment] # see above


class _StreamStreamInterceptor(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    """Guards stream-stream calls."""

    shape = "stream_stream"
    wrapper = WatchedStreamStream
    intercept_stream_stream = _Interceptor.intercept  # type: ignore[assignment] # see above


def _is_innermost(continuation: Any) -> bool:
    """Return whether `continuation` runs no other interceptor, which the permit could be lent to.

    grpcio binds the remaining interceptors to it. If another grpcio does not, the permit is lent in
    vain, which takes a sixth of what the guard adds to a call.
    """
    bound: tuple[object, ...] = getattr(continuation, "args", ())
    return bool(bound) and bound[0] == []


def _if_sendable(metadata: Any, policy: MethodPolicy) -> MethodPolicy | None:
    """Return `policy`, or None for metadata that grpcio refuses, because it says why."""
    return policy if is_valid_metadata(metadata) else None


def _with_lasting_metadata(details: Any) -> Any:
    """Return `details` with metadata that can be read more than once.

    grpcio takes any iterable and reads it once, when it sends. That exhausts a generator, for
    example.
    """
    if isinstance(details.metadata, grpc.aio.Metadata | tuple | list):
        return details
    return _details(details, tuple(details.metadata), details.wait_for_ready)


def _amended(details: Any, guarded: GuardedCall) -> Any:
    """Return the details of a call with the changes of its guard."""
    metadata = details.metadata
    if guarded.metadata is not None:
        metadata = _of_its_kind(metadata, guarded.metadata)
    return _details(details, metadata, guarded.wait_for_ready(details.wait_for_ready))


def _marked(details: Any) -> Any:
    """Return the details of a call of a replay that is not guarded."""
    pairs = marked_if_valid(details.metadata)
    metadata = _of_its_kind(details.metadata, pairs) if is_valid_metadata(pairs) else pairs
    return _details(details, metadata, details.wait_for_ready)


def _of_its_kind(metadata: Any, pairs: Pairs) -> Any:
    """Return `pairs` as a tuple if `metadata` is one, else in the type that grpcio gives."""
    # grpc.aio.Metadata may change the order.
    return pairs if isinstance(metadata, tuple) else grpc.aio.Metadata(*pairs)


def _details(details: Any, metadata: Any, wait_for_ready: bool | None) -> Any:  # noqa: FBT001 - grpcio's own flag
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, wait_for_ready
    )
