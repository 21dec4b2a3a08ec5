"""A gRPC server for tests, in a process of its own: it needs no .proto and does what requests say.

A request is JSON; see :func:`ask`. The server counts what reaches it, and reports on request over
``/test.Control/Seen``. It can be hung, killed, and started again on the same port.

This file is also the server's own program.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess, process_state, threads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ECHO = "/test.Echo/Do"  # one request, one response
STREAM = "/test.Echo/Stream"  # one request, many responses
GATHER = "/test.Echo/Gather"  # many requests, of which the first is the order; one response
CHAT = "/test.Echo/Chat"  # many requests, of which the first is the order; many responses
HEALTH = "/grpc.health.v1.Health/Check"
_SEEN = "/test.Control/Seen"
_HEALTH_CHECK = b"\x0a"  # how a HealthCheckRequest begins that names a service
_SERVING = b"\x08\x01"  # a HealthCheckResponse
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
    messages: int = 3,
    patience: bool = True,
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
        messages: how many responses come before the status, where there may be many; -1 for one
            after the other until the call is cancelled.
        patience: whether to read all requests first, where there may be many.
    """
    order = {
        "code": code,
        "details": details,
        "delay": delay,
        "trailing": trailing,
        "status_details": status_details.hex(),
        "reply": reply,
        "raises": raises,
        "messages": messages,
        "patience": patience,
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
    """The server, seen from the test. Starts when entered.

    Args:
        tls: a directory with ``key.pem``, ``chain.pem`` and ``ca.pem`` for ``localhost``; without,
            the server is reached in plain text.
    """

    def __init__(self, tls: Path | None = None) -> None:
        self._tls = tls
        self.port = reserve_port()
        self.target = f"127.0.0.1:{self.port}"
        self._process: KeptProcess | None = None
        self._control: grpc.Channel | None = None

    def start(self) -> None:
        """Start it, or start it again on the same port, and wait until it answers."""
        root = Path(__file__).parents[2]
        self._process = KeptProcess(
            [sys.executable, "-m", "tests.support.grpc_server", str(self.port), *self._files()],
            cwd=root,
        )
        self._control = self.connect()
        self._ask_control(wait_for_ready=True)

    def connect(self) -> grpc.Channel:
        """Make a channel to it."""
        options = [("grpc.max_reconnect_backoff_ms", 100)]
        if self._tls is None:
            return grpc.insecure_channel(self.target, options=options)
        return grpc.secure_channel(f"localhost:{self.port}", self.credentials(), options=options)

    def credentials(self) -> grpc.ChannelCredentials:
        """Provide what a channel to it needs for TLS."""
        assert self._tls is not None
        return grpc.ssl_channel_credentials((self._tls / "ca.pem").read_bytes())

    def _files(self) -> list[str]:
        return [] if self._tls is None else [str(self._tls)]

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
        pid = self._process.pid
        wait_until(
            lambda: all(process_state(pid, thread) in "TXZ" for thread in threads_of(pid)),
            "every thread's stop",
        )

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.resume()

    def seen(self) -> dict[str, Any]:
        """Return what reached it: calls ``begun`` and ``cancelled``, and the last ``metadata``."""
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


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, Any] = {"begun": 0, "cancelled": 0, "metadata": []}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        match handler_call_details.method:
            case "/test.Control/Seen":
                return grpc.unary_unary_rpc_method_handler(self._tell)
            case "/test.Echo/Stream" | "/demo.Greeter/Watch":
                return grpc.unary_stream_rpc_method_handler(self._stream)
            case "/test.Echo/Gather":
                return grpc.stream_unary_rpc_method_handler(self._gather)
            case "/test.Echo/Chat":
                return grpc.stream_stream_rpc_method_handler(self._chat)
            case _:
                return grpc.unary_unary_rpc_method_handler(self._do)

    def _tell(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        with self._lock:
            return json.dumps(self._seen).encode()

    def _do(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request.startswith(_HEALTH_CHECK):
            return _SERVING
        order = _read(request)
        with self._begun(context) as left:
            left.wait(order["delay"])
        _end(order, context)
        reply: str = order["reply"]
        return reply.encode()

    def _gather(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        first = next(requests, b"")
        if _read(first)["patience"]:
            for _ in requests:
                pass
        return self._do(first, context)

    def _stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        order = _read(request)
        reply: str = order["reply"]
        with self._begun(context) as left:
            left.wait(order["delay"])
            given = 0
            while given != order["messages"] and not left.is_set():
                yield reply.encode()
                given += 1
                if order["messages"] < 0:
                    left.wait(0.001)
        _end(order, context)

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        first = next(requests, b"")
        if _read(first)["patience"]:
            for _ in requests:
                pass
        yield from self._stream(first, context)

    @contextlib.contextmanager
    def _begun(self, context: grpc.ServicerContext) -> Iterator[threading.Event]:
        """Count a call that begins, and one that is over before the block is."""
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
        yield left
        finished = True


def _read(request: bytes) -> dict[str, Any]:
    # A document's examples send what they like, and grpcio an empty message in place of one that it
    # could not serialize.
    order: dict[str, Any] = json.loads(request if request.startswith(b"{") else ask())
    return order


def _end(order: dict[str, Any], context: grpc.ServicerContext) -> None:
    trailing = [tuple(pair) for pair in order["trailing"]]
    if order["status_details"]:
        trailing.append(("grpc-status-details-bin", bytes.fromhex(order["status_details"])))
    context.set_trailing_metadata(tuple(trailing))
    if order["raises"]:
        raise ValueError("asked to raise")
    if order["code"] != "OK":
        context.abort(grpc.StatusCode[order["code"]], order["details"])


def _serve(port: int, tls: Path | None) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Handlers(),))
    address = f"127.0.0.1:{port}"
    if tls is None:
        server.add_insecure_port(address)
    else:
        pair = ((tls / "key.pem").read_bytes(), (tls / "chain.pem").read_bytes())
        server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
