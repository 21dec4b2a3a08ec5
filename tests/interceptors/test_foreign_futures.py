"""Futures of another interceptor, which are cancelled by rules of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from fusewire.interceptors import guard
from fusewire.interceptors._sync import future as futures
from tests.support.grpc_server import ECHO, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.support.grpc_guard import WatchedRegistry


class FailedFuture(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg] # not subscriptable at run time
    """A future that has failed, and that says of `cancel` that it did something."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "no"

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def cancel(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def exception(self, timeout: float | None = None) -> Exception:
        return self

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)


class Failing(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, _continuation: Any, _details: Any, _request: Any) -> Any:
        future: Any = FailedFuture  # only the parts that a guard asks for
        return future()


def test_cancelling_a_failed_future_ends_it_and_its_fallback_is_not_asked(
    bare: grpc.Channel, registry: WatchedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(futures, "run_fallback", waiting.append)
    asked: list[Any] = []
    fallbacks = {"*": lambda *given: asked.append(given)}
    called: list[Any] = []
    failing = grpc.intercept_channel(bare, Failing())
    guarded = guard(failing, registry=registry, fallbacks=fallbacks)
    future = guarded.unary_unary(ECHO).future(ask())
    future.add_done_callback(called.append)
    assert not future.done()
    assert future.cancel()
    assert future.done()
    wait_until(lambda: called == [future], "the callback, which runs in a thread of ours")
    for fall_back in waiting:
        fall_back()
    assert asked == []
    assert called == [future]
