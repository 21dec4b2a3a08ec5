"""Sync channels: a channel around a channel, whose methods are guarded.

It is not a channel of ``grpc.intercept_channel``, because grpcio does not show an interceptor
whether a call blocks or is a future, and wraps what the interceptor returns. Here a call that needs
no fallback is the very object that the inner channel returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc

from fusewire.errors import SettingsError
from fusewire.interceptors._policy import Policies
from fusewire.interceptors._sync.multicallable import (
    StreamStreamMethod,
    StreamUnaryMethod,
    UnaryStreamMethod,
    UnaryUnaryMethod,
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
        channel: the channel to guard. Closing the returned channel closes it.
        settings: for all breakers, or by selector. None as a selector's value leaves its methods
            unguarded, and so does a mapping without a matching selector. By default the registry's
            own settings apply.
        dependency: a name for this deployment of the services. It begins the breakers' names, as
            in ``payments-eu/pkg.Service/Method``.
        registry: where the breakers live. The default is the process's own registry, so that all
            of its channels share one breaker per method.
        fallbacks: by selector, what answers in place of a rejection or a failure. For a method
            whose response is a stream, it is an iterable of messages or a function that returns
            one.
        classify: decides what the end of a call means, for all methods or by selector.
        idempotent: selectors of methods whose server honors an ``idempotency-key``. Their calls
            within an operation carry one.
        streams: when a call whose response is a stream is settled, for all methods or by selector.
            ``"end"``: when it is over; it is never slow, because its reader sets the pace.
            ``"first_message"``: with the first message, and only the time until then counts; how
            the call ends then changes nothing. ``"total_time"``: when it is over, and all of its
            time counts.
        breaker_per: ``"method"``, or ``"service"`` for one breaker, ``/pkg.Service``, that all
            methods of a service share, except those that `settings` name by themselves.
        health: checks the health of servers while their circuits are open.

    Returns:
        A channel to make stubs with.

    Raises:
        SettingsError: a setting is wrong; the message names it and what is accepted.
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

    # Arguments are passed on unchanged: generated stubs use private ones of grpcio's.

    def __init__(self, channel: grpc.Channel, policies: Policies) -> None:
        self._channel = channel
        self.policies = policies

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "unary_unary")
        inner = self._channel.unary_unary(method, *args, **kwargs)
        return UnaryUnaryMethod(inner, method, self.policies, _serializer(args, kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "unary_stream")
        inner = self._channel.unary_stream(method, *args, **kwargs)
        return UnaryStreamMethod(inner, method, self.policies, _serializer(args, kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "stream_unary")
        inner = self._channel.stream_unary(method, *args, **kwargs)
        return StreamUnaryMethod(inner, method, self.policies)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.policies.note_method(method, "stream_stream")
        inner = self._channel.stream_stream(method, *args, **kwargs)
        return StreamStreamMethod(inner, method, self.policies)

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
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _serializer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the request serializer from the arguments that a stub makes a method with."""
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
