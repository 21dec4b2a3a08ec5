"""Interceptors of asyncio channels that change nothing, one for each shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable


class _NoOp:
    def __init__(self, note: Callable[[Any], object]) -> None:
        self._note = note

    async def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        self._note(call)
        return call


class _NoOpUnaryUnary(_NoOp, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _NoOpUnaryStream(_NoOp, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class _NoOpStreamUnary(_NoOp, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


class _NoOpStreamStream(_NoOp, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._intercept(continuation, client_call_details, request_iterator)


def _ignore(_call: object) -> None: ...


def aio_no_op(note: Callable[[Any], object] = _ignore) -> list[grpc.aio.ClientInterceptor]:
    """Make them; `note` is called with each call that comes from within."""
    shapes = (_NoOpUnaryUnary, _NoOpUnaryStream, _NoOpStreamUnary, _NoOpStreamStream)
    return [shape(note) for shape in shapes]
