"""Unary calls on a sync channel in the three ways there are, and all that a user sees of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

STYLES = pytest.mark.parametrize("style", ["call", "with_call", "future"])


def call(method: Any, style: str, request: bytes, **options: Any) -> Any:
    """Call in one of the three ways, and wait for the response."""
    if style == "with_call":
        return method.with_call(request, **options)[0]
    if style == "future":
        return method.future(request, **options).result(20)
    return method(request, **options)


def seen(method: Any, style: str, request: bytes, **options: Any) -> Any:
    """Call and return all that the user sees of it."""
    try:
        return call(method, style, request, **options)
    except grpc.RpcError as error:
        kind = type(error).__name__
        return kind, error.code(), error.details(), tuple(error.trailing_metadata())
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
        return type(error).__name__, str(error)


async def aio_seen(call: Any) -> Any:
    """Await a call on an asyncio channel and return all that the user sees of it."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        kind = type(error).__name__
        return kind, error.code(), error.details(), tuple(error.trailing_metadata() or ())
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
        return (type(error).__name__,)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` is true, for a limited time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is often another process's
            await asyncio.sleep(0.005)
    assert condition(), what
