"""HTTP routes for probes and dashboards: an ASGI 3 application that needs no framework."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import anyio.to_thread

from fusewire._validation import SWITCH, check
from fusewire.telemetry._asgi import answer_lifespan
from fusewire.telemetry.health._indicator import indicate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.telemetry._asgi import Message, Receive, Scope, Send
    from fusewire.telemetry.health._health import Health

_TEXT, _JSON = b"text/plain; charset=utf-8", b"application/json"


class _Response(NamedTuple):
    status: int
    text: str
    kind: bytes = _TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def messages(self, *, with_body: bool) -> tuple[Message, Message]:
        body = self.text.encode()
        headers = [
            (b"content-type", self.kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]
        return (
            {"type": "http.response.start", "status": self.status, "headers": headers},
            {"type": "http.response.body", "body": body if with_body else b""},
        )


def make_asgi_app(
    health: Health, *, show_details: bool = False
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an ASGI application with routes for an orchestrator's probes and for dashboards.

    - ``/startupz``, ``/readyz`` and ``/livez`` answer 200 and ``ok``, or 503 and ``failing``.
    - ``/health`` answers with JSON in the words of Spring Boot's endpoint: 200 and ``UP``, or 503
      and ``OUT_OF_SERVICE`` if the process is not ready, ``DOWN`` if it needs a restart.

    Serve it alone, or mount it in another application: a prefix that the other one has taken off,
    or noted as ``root_path``, is understood. Nothing is waited for, and the event loop goes on
    while ``/health`` is put together.

    Args:
        health: what is asked.
        show_details: whether ``/health`` shows circuits, consumers, figures and reasons too. They
            say what the service depends on, so show them only where your own people look.
    """
    routes = _Routes(health, show_details=check("show_details", show_details, SWITCH))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            response = await routes.answer(scope["method"], path.rstrip("/"))
            for message in response.messages(with_body=scope["method"] != "HEAD"):
                await send(message)
        else:
            raise ValueError(f"only HTTP is answered here, got a scope of type {scope['type']!r}")

    return app


class _Routes:
    """Answers a request for a path."""

    def __init__(self, health: Health, *, show_details: bool) -> None:
        self._health = health
        self._show_details = show_details
        self._probes = {
            "/startupz": health.startup,
            "/readyz": health.readiness,
            "/livez": health.liveness,
        }

    async def answer(self, method: str, path: str) -> _Response:
        if path not in self._probes and path != "/health":
            return _Response(404, f"not found: there are {', '.join(self._probes)} and /health\n")
        if method not in ("GET", "HEAD"):
            return _Response(405, "use GET\n", headers=((b"allow", b"GET, HEAD"),))
        if path in self._probes:
            passes = self._probes[path]().passes
            return _Response(200 if passes else 503, "ok\n" if passes else "failing\n")
        return await anyio.to_thread.run_sync(self._indicate)  # many circuits take a while

    def _indicate(self) -> _Response:
        report = self._health.report()
        passes = report.readiness.passes and report.liveness.passes
        text = json.dumps(indicate(report, details=self._show_details))
        return _Response(200 if passes else 503, f"{text}\n", _JSON)
