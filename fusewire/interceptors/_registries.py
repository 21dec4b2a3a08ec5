"""What can be found out about a channel of either kind: whether it is guarded, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.interceptors._policy import Policies
from fusewire.interceptors._targets import layers_of

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry


def registries_of(channel: grpc.Channel | grpc.aio.Channel) -> list[BreakerRegistry] | None:
    """Return the registries of the guards on `channel`; None if that cannot be found out."""
    guards: Any
    if isinstance(channel, grpc.aio.Channel):
        guards = getattr(channel, "_unary_unary_interceptors", None)
        if guards is None:
            return None  # another kind of channel, or another grpcio
    else:
        guards = [*layers_of(channel)]
        if type(guards[-1]).__module__.partition(".")[0] != "grpc":
            return None  # a channel of the user's own, on whatever it stands
    policies = [getattr(guard, "policies", None) for guard in guards]
    return [one.registry for one in policies if isinstance(one, Policies)]
