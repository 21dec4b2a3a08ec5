"""Errors of calls, and what a breaker says of the last one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker

SECRET = "card 4111 1111 1111 1111"  # noqa: S105 - what an error's text may hold


class RpcLikeError(grpc.RpcError):
    """An error with a status, as gRPC's stubs raise it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


RPC_LIKE = f"{__name__}.RpcLikeError"


def known(breaker: CircuitBreaker) -> tuple[str, str]:
    figures, snapshot = breaker.figures(), breaker.snapshot()
    assert (snapshot.error_type, snapshot.error_status) == (
        figures.error_type,
        figures.error_status,
    )
    return figures.error_type, figures.error_status


def fail_with(breaker: CircuitBreaker, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with contextlib.suppress(type(error)):
        breaker.call(fail)
