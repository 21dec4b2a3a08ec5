"""Where sync channels lead: two servers may share circuits by mistake.

grpcio does not show a channel's target to interceptors, nor on asyncio channels. Of a sync channel
its private layers know it; those of another grpcio may not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import grpc

from fusewire._locks import make_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.breaker import BreakerRegistry

logger = logging.getLogger("fusewire.interceptors")


def layers_of(channel: grpc.Channel) -> Iterator[grpc.Channel]:
    """Yield a sync channel and those that it wraps, as far as they can be found."""
    layer: Any = channel
    while isinstance(layer, grpc.Channel):
        yield layer
        layer = getattr(layer, "_channel", None)


def target_of(channel: grpc.Channel) -> str:
    """Return the target of a sync channel; empty if it cannot be found out."""
    innermost: Any = [*layers_of(channel)][-1]
    try:
        target: bytes = innermost._channel.target()  # noqa: SLF001 - see above
        return target.decode()
    except (
        AttributeError,
        TypeError,
        ValueError,
    ):  # a channel of the user's own, or another grpcio
        return ""


class _Targets:
    """By registry and service, the first target whose calls its circuits count."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._first: WeakKeyDictionary[BreakerRegistry, dict[str, str]] = WeakKeyDictionary()

    def note(self, registry: BreakerRegistry, service: str, target: str) -> None:
        """Warn once if the circuits of `service` count the calls to two targets."""
        if not target:
            return
        try:
            with self._lock:
                services = self._first.setdefault(registry, {})
                first = services.setdefault(service, target)
                if first and first != target:
                    services[service] = ""  # warned
        except TypeError:  # a registry of the user's own that has no weak references
            return
        if first and first != target:
            logger.warning(
                "channels to %s and to %s share the circuits of %r, which is right for instances "
                "of one deployment only; give channels to different ones a dependency= each",
                first,
                target,
                service,
            )


targets = _Targets()
