"""A payments server that fails on request, and a store of each kind."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHARGE = "/shop.Payments/Charge"
CODES = {code.name: code for code in grpc.StatusCode}


class PaymentsServer(grpc.GenericRpcHandler):
    """Honors the idempotency key, answers what it is told, and can be stopped and started."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.effects: dict[str, bytes] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str], grpc.StatusCode | None] = lambda key: None
        self.trailing: tuple[tuple[str, str], ...] = ()  # sent with what is not OK
        self.details = "as told"  # likewise
        self.reply = b""  # after the key, in what is OK
        self._server: grpc.Server | None = None
        self.port = reserve_port()
        self.start()

    def start(self) -> None:
        server = grpc.server(
            futures.ThreadPoolExecutor(8), handlers=[self], options=[("grpc.so_reuseport", 0)]
        )
        server.add_insecure_port(self.target)
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait(10)
            self._server = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(self._charge)

    def _charge(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        key = str(metadata.get("idempotency-key", ""))
        with self.lock:
            self.seen.append((key, metadata))
            code = self.answer(key)
            if code is None:
                self.effects.setdefault(key, request)
        if code is not None:
            context.set_trailing_metadata(self.trailing)
            context.abort(code, self.details)
        return b"charged:" + key.encode() + self.reply


@pytest.fixture
def server() -> Iterator[PaymentsServer]:
    server = PaymentsServer()
    yield server
    server.stop()


@pytest.fixture
def registry() -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=0.3, half_open_max_calls=1)
    )


@pytest.fixture(params=["sqlite", "rabbitmq"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "rabbitmq":
        return str(request.getfixturevalue("amqp_url"))
    return f"sqlite:///{tmp_path}/broker.db"


CHANNEL_OPTIONS = (
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
)
