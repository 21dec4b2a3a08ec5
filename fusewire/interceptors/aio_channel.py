"""Asyncio channels: the interceptors that guard their methods.

They go to the channel's constructor, one object for each shape of call: grpcio registers an
object of several shapes for the first one only (https://github.com/grpc/grpc/issues/31442).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.errors import CircuitOpenError
from fusewire.interceptors.aio_calls import RejectedUnaryUnary, sendable, watch
from fusewire.interceptors.aio_fallback import FallbackUnaryUnary
from fusewire.interceptors.guarded import GuardedCall
from fusewire.interceptors.policy import Policies
from fusewire.interceptors.rejection import AioRejectedCall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors.fallback import Fallback
    from fusewire.interceptors.policy import ClassifyBySelector, SettingsBySelector


def aio_interceptors(
    settings: SettingsBySelector = None,
    *,
    dependency: str | None = None,
    registry: BreakerRegistry | None = None,
    fallbacks: Mapping[str, Fallback | None] | None = None,
    classify: ClassifyBySelector = None,
    idempotent: Collection[str] = (),
) -> list[grpc.aio.ClientInterceptor]:
    """Make the interceptors that put a circuit breaker on every method of an asyncio channel.

    Give the list to the channel's constructor: ``grpc.aio.insecure_channel(target,
    interceptors=aio_interceptors())``. The arguments are those of
    :func:`~fusewire.interceptors.guard`; here a fallback may be a coroutine function too.

    Raises:
        SettingsError: a setting cannot be right; the message names it and what would be accepted.
    """
    policies = Policies(
        settings,
        dependency=dependency,
        registry=registry,
        fallbacks=fallbacks,
        classify=classify,
        idempotent=idempotent,
        sync=False,
    )
    return [_UnaryUnaryGuard(policies)]


class _UnaryUnaryGuard(grpc.aio.UnaryUnaryClientInterceptor):
    """Guards unary-unary calls."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Awaitable[Any]],
        client_call_details: Any,
        request: Any,
    ) -> Any:
        details = client_call_details
        method = details.method
        # bytes, whatever the annotation says (https://github.com/grpc/grpc/issues/31092)
        policy = self._policies.of(method.decode() if isinstance(method, bytes) else method)
        if policy is None or not sendable(details.metadata):
            return await continuation(details, request)
        guarded = GuardedCall(policy, details.metadata, details.timeout)
        refused = guarded.admit()
        if refused is not None:
            rejected = AioRejectedCall.of(refused)
            if guarded.fallback is None:
                raise rejected
            return FallbackUnaryUnary(RejectedUnaryUnary(rejected), guarded, request)
        try:
            call = await continuation(_amended(details, guarded), request)
        except CircuitOpenError:
            guarded.release()  # the rejection of another guard
            raise
        except grpc.aio.AioRpcError as error:  # an inner interceptor's, or a call that it awaited
            guarded.fail(error.code(), error.details(), error.trailing_metadata())
            raise
        except BaseException:
            guarded.release()
            raise
        if guarded.fallback is None:
            watch(guarded, call)
            return call
        return FallbackUnaryUnary(call, guarded, request)


def _amended(details: Any, guarded: GuardedCall) -> Any:
    """Make the details of a call as its guard wants them."""
    wait_for_ready = guarded.wait_for_ready(details.wait_for_ready)
    if guarded.metadata is None and wait_for_ready is details.wait_for_ready:
        return details
    metadata = (
        details.metadata if guarded.metadata is None else grpc.aio.Metadata(*guarded.metadata)
    )
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, wait_for_ready
    )
