"""What idempotency keys are to look like, said a second time, and the ones that a server got."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import grpc

from fusewire.interceptors import aio_interceptors
from fusewire.operation import IDEMPOTENCY_KEY
from tests.support.grpc_server import ECHO, STREAM

if TYPE_CHECKING:
    from fusewire.operation import Operation
    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer


def key_of(
    request: bytes,
    *,
    operation_id: str = "op-1",
    method: str = ECHO,
    dependency: str = "",
    number: int = 1,
) -> str:
    """Make the key of the `number`-th of the calls of an operation with an equal request."""
    parts = (dependency.encode(), method.encode(), request)
    data = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    key = f"{quote(operation_id, safe='')}{method}/{hashlib.sha256(data).hexdigest()[:32]}"
    return key if number == 1 else f"{key}/{number}"


def sent_keys(server: EchoServer) -> list[str]:
    """Return the keys that came with the last call; several would be a fault."""
    return [value for key, value in server.seen()["metadata"] if key == IDEMPOTENCY_KEY]


def aio_keyed(server: EchoServer, registry: WatchedRegistry, **options: Any) -> Any:
    """Make a guarded asyncio channel with idempotent methods."""
    within = options.pop("within", ())
    options.setdefault("idempotent", {ECHO, STREAM})
    return grpc.aio.insecure_channel(
        server.target, interceptors=[*aio_interceptors(registry=registry, **options), *within]
    )


def held(work: Operation) -> list[str]:
    """Return the keys that a call holds, of those that are over and of those that are not."""
    keys = []
    for key, numbers in work._numbers.items():
        unused = int(repr(numbers._unused).strip("count()"))
        taken = [number for number in range(1, unused) if number not in numbers.free]
        keys += [key if number == 1 else f"{key}/{number}" for number in taken]
    return keys
