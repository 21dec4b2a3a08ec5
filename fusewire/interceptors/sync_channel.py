"""Sync channels: a channel around a channel, whose methods are guarded.

It is a channel of its own, not one of ``grpc.intercept_channel``, because grpcio does not tell an
interceptor whether a call blocks or is a future, and wraps what comes of it. Here a call that needs
no fallback is the very object that the inner channel gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc

from fusewire.errors import SettingsError
from fusewire.interceptors.guarded import GuardedCall
from fusewire.interceptors.policy import Policies
from fusewire.interceptors.rejection import RejectedCall
from fusewire.interceptors.sync_calls import FallbackFuture, FallbackReply, answer, settle, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors.fallback import Fallback
    from fusewire.interceptors.policy import ClassifyBySelector, SettingsBySelector


def guard(
    channel: grpc.Channel,
    settings: SettingsBySelector = None,
    *,
    dependency: str | None = None,
    registry: BreakerRegistry | None = None,
    fallbacks: Mapping[str, Fallback | None] | None = None,
    classify: ClassifyBySelector = None,
    idempotent: Collection[str] = (),
) -> grpc.Channel:
    """Put a circuit breaker on every method that is called through `channel`.

    A selector is ``/pkg.Service/Method``, ``/pkg.Service/*`` or ``*``; the most specific one wins.

    Args:
        channel: the channel to guard; the one returned closes it.
        settings: of all breakers, or by selector. None in their place leaves methods unguarded, as
            does a mapping in which no selector matches. Without any, the registry's own apply.
        dependency: a name that tells this deployment of the services from others; it leads the
            breakers' names, as in ``payments-eu/pkg.Service/Method``.
        registry: where the breakers live; the process's own unless given, so that all its channels
            share one breaker per method.
        fallbacks: by selector, what answers in place of a rejection or a failure.
        classify: what the ends of calls say, for all methods or by selector.
        idempotent: selectors of methods whose server honors an ``idempotency-key``: within an
            operation, their calls carry one.

    Returns:
        a channel to make stubs with.

    Raises:
        SettingsError: a setting cannot be right; the message names it and what would be accepted.
    """
    if not isinstance(channel, grpc.Channel):
        raise SettingsError(
            f"channel: {channel!r} is not a grpc.Channel; an asyncio channel is guarded by "
            "passing interceptors=aio_interceptors(...) when it is made"
        )
    policies = Policies(
        settings,
        dependency=dependency,
        registry=registry,
        fallbacks=fallbacks,
        classify=classify,
        idempotent=idempotent,
        sync=True,
    )
    return _GuardedChannel(channel, policies)


class _GuardedChannel(grpc.Channel):
    """A channel around a channel."""

    # Arguments are passed on as they come: grpcio adds private ones, which generated stubs use.

    def __init__(self, channel: grpc.Channel, policies: Policies) -> None:
        self._channel = channel
        self._policies = policies

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        inner = self._channel.unary_unary(method, *args, **kwargs)
        return _GuardedUnaryUnary(inner, method, self._policies)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.unary_stream(*args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_unary(*args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_stream(*args, **kwargs)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool = False,  # noqa: FBT001, FBT002 - grpcio's signature
    ) -> None:
        self._channel.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _GuardedUnaryUnary(
    grpc.UnaryUnaryMultiCallable  # type: ignore[type-arg] # not subscriptable at run time
):
    """A unary-unary method, guarded."""

    def __init__(self, inner: Any, method: str, policies: Policies) -> None:
        self._inner = inner
        self._method = method
        self._policies = policies

    def __call__(  # noqa: PLR0917 - grpcio's signature
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpcio's signature
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        answered = self._blocking(self._inner, request, arguments)
        return answered.message if isinstance(answered, FallbackReply) else answered

    def with_call(  # noqa: PLR0917 - grpcio's signature
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpcio's signature
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        answered = self._blocking(self._inner.with_call, request, arguments)
        return (answered.message, answered) if isinstance(answered, FallbackReply) else answered

    def future(  # noqa: PLR0917 - grpcio's signature
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpcio's signature
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        policy = self._policies.of(self._method)
        if policy is None:
            return self._inner.future(request, **arguments)
        guarded = GuardedCall(policy, metadata, timeout)
        refused = guarded.admit()
        if refused is not None:
            rejected = RejectedCall.of(refused)
            if guarded.fallback is None:
                return rejected
            return FallbackFuture(rejected, guarded, request)
        try:
            inner = self._inner.future(request, **_amended(arguments, guarded))
        except BaseException:
            guarded.release()  # nothing was sent
            raise
        if guarded.fallback is None:
            watch(guarded, inner)
            return inner
        return FallbackFuture(inner, guarded, request)

    def _blocking(self, call: Any, request: Any, arguments: dict[str, Any]) -> Any:
        """Make a blocking call; returns what `call` does, or the fallback's reply."""
        policy = self._policies.of(self._method)
        if policy is None:
            return call(request, **arguments)
        guarded = GuardedCall(policy, arguments["metadata"], arguments["timeout"])
        refused = guarded.admit()
        error: grpc.RpcError
        if refused is not None:
            error = RejectedCall.of(refused)
        else:
            try:
                response = call(request, **_amended(arguments, guarded))
            except grpc.RpcError as failure:
                if not settle(guarded, failure):
                    raise
                error = failure
            except BaseException:
                guarded.release()
                raise
            else:
                guarded.succeed()
                return response
        try:
            reply = answer(guarded, request, error)
            if reply is None:
                raise error
            return reply
        finally:
            del error  # its traceback holds this frame, which would hold it


def _amended(arguments: dict[str, Any], guarded: GuardedCall) -> dict[str, Any]:
    """Change the arguments of a call as its guard wants them."""
    if guarded.metadata is not None:
        arguments["metadata"] = guarded.metadata
    arguments["wait_for_ready"] = guarded.wait_for_ready(arguments["wait_for_ready"])
    return arguments
