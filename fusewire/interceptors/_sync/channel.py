"""Sync channels: a channel around a channel, whose methods are guarded.

It is a channel of its own, not one of ``grpc.intercept_channel``, because grpcio does not tell an
interceptor whether a call blocks or is a future, and wraps what comes of it. Here a call that needs
no fallback is the very object that the inner channel gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc

from fusewire.errors import SettingsError
from fusewire.interceptors._policy import Policies
from fusewire.interceptors._sync.multicallable import (
    GuardedStreamStream,
    GuardedStreamUnary,
    GuardedUnaryStream,
    GuardedUnaryUnary,
)
from fusewire.interceptors._targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors._arguments import (
        BreakerPer,
        ClassifyBySelector,
        SettingsBySelector,
        StreamsBySelector,
    )
    from fusewire.interceptors._fallback import Fallback
    from fusewire.interceptors._health import HealthProbe


def guard(
    channel: grpc.Channel,
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
        fallbacks: by selector, what answers in place of a rejection or a failure. For a method
            whose response is a stream it is an iterable of messages, or a function that gives one.
        classify: what the ends of calls say, for all methods or by selector.
        idempotent: selectors of methods whose server honors an ``idempotency-key``: within an
            operation, their calls carry one.
        streams: when a call whose response is a stream has said what there is to say, for all
            methods or by selector. ``"end"``: when it is over; it is never slow, because its reader
            sets the pace. ``"first_message"``: with the first message, and the time to it counts
            as the call's; how the call ends then changes nothing. ``"total_time"``: when it is
            over, and all its time counts.
        breaker_per: ``"method"``, or ``"service"`` for one breaker, ``/pkg.Service``, that all
            methods of a service share, except those that `settings` name singly.
        health: what asks the servers how they are while a circuit is open.

    Returns:
        a channel to make stubs with.

    Raises:
        SettingsError: a setting cannot be right; the message names it and what would be accepted.
    """
    if not isinstance(channel, grpc.Channel):
        raise SettingsError(_no_channel(channel))
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
        sync=True,
        target=target_of(channel),
    )
    return _GuardedChannel(channel, policies)


class _GuardedChannel(grpc.Channel):
    """A channel around a channel."""

    # Arguments are passed on as they come: grpcio adds private ones, which generated stubs use.

    def __init__(self, channel: grpc.Channel, policies: Policies) -> None:
        self._channel = channel
        self.policies = policies

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "unary_unary")
        inner = self._channel.unary_unary(method, *args, **kwargs)
        return GuardedUnaryUnary(inner, method, self.policies, _serializer(args, kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "unary_stream")
        inner = self._channel.unary_stream(method, *args, **kwargs)
        return GuardedUnaryStream(inner, method, self.policies, _serializer(args, kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "stream_unary")
        inner = self._channel.stream_unary(method, *args, **kwargs)
        return GuardedStreamUnary(inner, method, self.policies)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "stream_stream")
        inner = self._channel.stream_stream(method, *args, **kwargs)
        return GuardedStreamStream(inner, method, self.policies)

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


def _serializer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Find what makes bytes of a method's requests in the arguments that its stub gives."""
    return args[0] if args else kwargs.get("request_serializer")


def _no_channel(given: object) -> str:
    if isinstance(given, str):
        return (
            f"channel must be a grpc.Channel, got the target {given!r}; write "
            f"guard(grpc.insecure_channel({given!r})), or a secure channel"
        )
    if isinstance(given, grpc.aio.Channel):
        return (
            "channel must be a grpc.Channel, got an asyncio channel; that is guarded by passing "
            "interceptors=aio_interceptors(...) when it is made"
        )
    return f"channel must be a grpc.Channel, got {given!r}"
