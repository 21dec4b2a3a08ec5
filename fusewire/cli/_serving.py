"""Probes and metrics of a program, over HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeAlias

from fusewire._validation import Rule, check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from fusewire.forwarding import ParkedCalls

_App: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]]"
_Routes: TypeAlias = "dict[str, _App]"

logger = logging.getLogger("fusewire.cli")

_POLL = 0.1  # seconds until the end is noticed


def _is_address(value: object) -> bool:
    host, _, port = str(value).rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 2**16


_ADDRESS = Rule("HOST:PORT, such as 0.0.0.0:8081", _is_address)


@contextmanager
def serving(address: str, calls: ParkedCalls) -> Iterator[None]:
    """Answer probes and scrapes for the block.

    In threads, so that they are answered while the event loop hangs.

    Args:
        address: ``HOST:PORT``.
        calls: what they are about.

    Raises:
        SettingsError: the address cannot be right.
        OSError: it cannot be listened at.
    """
    check("--http", address, _ADDRESS)
    host, _, port = address.rpartition(":")
    with ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(_routes(calls))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name="http")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _routes(calls: ParkedCalls) -> _Routes:
    """Return the applications by path; the one for all others has an empty path."""
    from fusewire.telemetry.health import Health, make_asgi_app  # noqa: PLC0415 - loads slowly

    routes: _Routes = {"": make_asgi_app(Health(consumers=[calls]))}
    try:
        from fusewire.telemetry import prometheus  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        logger.warning("there are no metrics at /metrics: %s", error)
    else:
        prometheus.export().watch(calls)
        routes["/metrics"] = prometheus.make_asgi_app()
    return routes


def _handler(routes: _Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            app = routes.get(path, routes[""])
            scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "root_path": "",
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in self.headers.items()
                ],
            }
            asyncio.run(self._answer(app, scope))

        async def _answer(self, app: _App, scope: dict[str, Any]) -> None:
            await app(scope, _nothing, self._send)

        async def _send(self, message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.send_response(message["status"])
                for name, value in message["headers"]:
                    self.send_header(name.decode("latin-1"), value.decode("latin-1"))
                self.end_headers()
            else:
                self.wfile.write(message["body"])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            logger.debug(format, *args)

    return Handler


async def _nothing() -> Mapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}
