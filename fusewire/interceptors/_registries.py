"""Which breakers guard a channel of either kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.interceptors._policy import Policies
from fusewire.interceptors._targets import layers_of

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry


def registries_of(channel: grpc.Channel | grpc.aio.Channel) -> list[BreakerRegistry] | None:
    """Return the registries of the guards on `channel`; None if it does not show its layers.

    The list is empty for a channel without a guard.
    """
    guards: Any
    if isinstance(channel, grpc.aio.Channel):
        guards = getattr(channel, "_unary_unary_interceptors", None)
        if guards is None:
            return None  # another kind of channel, or another grpcio
    else:
        guards = [*layers_of(channel)]
        if type(guards[-1]).__module__.partition(".")[0] != "grpc":
            return None  # a channel of the user's own
    policies = [getattr(guard, "policies", None) for guard in guards]
    return [one.registry for one in policies if isinstance(one, Policies)]
