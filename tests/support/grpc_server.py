"""A gRPC server for tests, in a process of its own: it needs no .proto and does what requests say.

A request is JSON; see :func:`ask`. The server counts what reaches it, and tells when asked over
``/test.Control/Seen``. It can be hung, killed, and started again on the same port.

This file is also the server's own program.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.support.processes import KeptProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

ECHO = "/test.Echo/Do"
HEALTH = "/grpc.health.v1.Health/Check"
_SEEN = "/test.Control/Seen"
_LIMIT = 20.0  # seconds that a test waits for what must come


def ask(
    *,
    code: str = "OK",
    details: str = "",
    delay: float = 0.0,
    trailing: tuple[tuple[str, str], ...] = (),
    status_details: bytes = b"",
    reply: str = "done",
    raises: bool = False,
) -> bytes:
    """Say how the server is to answer.

    Args:
        code: the status, by name.
        details: its details.
        delay: seconds to wait first.
        trailing: trailing metadata.
        status_details: a value for ``grpc-status-details-bin``.
        reply: the response.
        raises: whether the handler raises instead.
    """
    order = {
        "code": code,
        "details": details,
        "delay": delay,
        "trailing": trailing,
        "status_details": status_details.hex(),
        "reply": reply,
        "raises": raises,
    }
    return json.dumps(order).encode()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` is true, for a limited time."""
    end = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {_LIMIT} s: {what}")
        time.sleep(0.005)


class EchoServer:
    """The server, seen from the test. Starts when entered."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = f"127.0.0.1:{self.port}"
        self._process: KeptProcess | None = None
        self._control: grpc.Channel | None = None

    def start(self) -> None:
        """Start it, or start it again on the same port, and wait until it answers."""
        root = Path(__file__).parents[2]
        self._process = KeptProcess(
            [sys.executable, "-m", "tests.support.grpc_server", str(self.port)], cwd=root
        )
        self._control = grpc.insecure_channel(
            self.target, options=[("grpc.max_reconnect_backoff_ms", 100)]
        )
        self._ask_control(wait_for_ready=True)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        assert self._control is not None
        self._control.close()
        self._process.kill()
        self._process = None

    def pause(self) -> None:
        """Hang it."""
        assert self._process is not None
        self._process.pause()
        # The signal is sent; its threads stop one by one, and the next call may still be answered.
        tasks = Path(f"/proc/{self._process.pid}/task")
        wait_until(lambda: all(map(_stopped, tasks.iterdir())), "every thread's stop")

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.resume()

    def seen(self) -> dict[str, Any]:
        """Tell what reached it: calls ``begun``, those ``cancelled``, and the last ``metadata``."""
        return self._ask_control()

    def _ask_control(self, *, wait_for_ready: bool | None = None) -> dict[str, Any]:
        assert self._control is not None
        control = self._control.unary_unary(_SEEN)
        reply = control(b"", timeout=_LIMIT, wait_for_ready=wait_for_ready)
        seen: dict[str, Any] = json.loads(reply)
        return seen

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()


def _stopped(task: Path) -> bool:
    state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, Any] = {"begun": 0, "cancelled": 0, "metadata": []}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        match handler_call_details.method:
            case "/test.Control/Seen":
                return grpc.unary_unary_rpc_method_handler(self._tell)
            case "/test.Echo/Stream":
                return grpc.unary_stream_rpc_method_handler(self._stream)
            case _:
                return grpc.unary_unary_rpc_method_handler(self._do)

    def _tell(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        with self._lock:
            return json.dumps(self._seen).encode()

    def _stream(self, request: bytes, _context: grpc.ServicerContext) -> Any:
        for _ in range(3):
            yield request

    def _do(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        order = json.loads(request)
        left = threading.Event()
        finished = False

        def over() -> None:
            left.set()
            if not finished:
                with self._lock:
                    self._seen["cancelled"] += 1

        context.add_callback(over)
        with self._lock:
            self._seen["begun"] += 1
            self._seen["metadata"] = [
                (key, value)
                for key, value in context.invocation_metadata()
                if isinstance(value, str)
            ]
        if order["delay"]:
            left.wait(order["delay"])
        trailing = [tuple(pair) for pair in order["trailing"]]
        if order["status_details"]:
            trailing.append(("grpc-status-details-bin", bytes.fromhex(order["status_details"])))
        context.set_trailing_metadata(tuple(trailing))
        finished = True
        if order["raises"]:
            raise ValueError("asked to raise")
        if order["code"] != "OK":
            context.abort(grpc.StatusCode[order["code"]], order["details"])
        reply: str = order["reply"]
        return reply.encode()


def _serve(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Handlers(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
