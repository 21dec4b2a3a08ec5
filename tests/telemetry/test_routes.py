"""Metrics are served by programs of both kinds, and none stops for it."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from fusewire.telemetry.prometheus import export, make_asgi_app, make_wsgi_app
from tests.support.scraping import Scrape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from fusewire.breaker import BreakerRegistry


@pytest.fixture(autouse=True)
def _exported(circuits: BreakerRegistry, to: CollectorRegistry) -> None:
    circuits.get("payments")
    export(circuits, to=to)


Answer = tuple[int, dict[str, str], bytes]


async def ask_asgi(to: CollectorRegistry, method: str, **headers: str) -> Answer:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("there is nothing to read")

    scope = {
        "type": "http",
        "method": method,
        "path": "/metrics",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    await make_asgi_app(to)(scope, receive, send)
    start, body = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, body["body"]


def ask_wsgi(to: CollectorRegistry, method: str, **headers: str) -> Answer:
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    environ = {
        "REQUEST_METHOD": method,
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    app = make_wsgi_app(to)
    body = b"".join(app(environ, lambda status, sent: begun.append((status, sent))))
    ((status, sent),) = begun
    return int(status[:3]), {name.lower(): value for name, value in sent}, body


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ask(kind: str, to: CollectorRegistry, method: str = "GET", **headers: str) -> Answer:
    if kind == "asgi":
        return await ask_asgi(to, method, **headers)
    return ask_wsgi(to, method, **headers)


async def test_metrics_are_served(kind: str, to: CollectorRegistry) -> None:
    status, headers, body = await ask(kind, to)
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert headers["content-length"] == str(len(body))
    assert Scrape(body.decode())("circuit_breaker_state", circuit_name="payments") == 0


async def test_openmetrics_is_served_to_who_asks_for_it(kind: str, to: CollectorRegistry) -> None:
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    _, headers, body = await ask(kind, to, accept=wanted)
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_compressed(kind: str, to: CollectorRegistry) -> None:
    _, headers, body = await ask(kind, to, accept_encoding="deflate, gzip;q=1.0")
    assert headers["content-encoding"] == "gzip"
    assert b"circuit_breaker_state" in gzip.decompress(body)
    _, headers, body = await ask(kind, to, accept_encoding="gzip;q=0, identity")
    assert "content-encoding" not in headers
    assert b"circuit_breaker_state" in body


async def test_other_methods(kind: str, to: CollectorRegistry) -> None:
    status, headers, body = await ask(kind, to, "POST")
    assert (status, headers["allow"], body) == (405, "GET, HEAD", b"")
    status, headers, body = await ask(kind, to, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


class Waiting:
    """A collector that waits until the event loop has turned."""

    def __init__(self) -> None:
        self.turned = threading.Event()

    def collect(self) -> Iterator[Metric]:
        assert self.turned.wait(30), "the event loop waits for the scrape"
        return iter(())


async def test_the_event_loop_goes_on_during_a_scrape() -> None:
    to, waiting = CollectorRegistry(), Waiting()
    to.register(waiting)
    asyncio.get_running_loop().call_later(0.01, waiting.turned.set)
    status, _, _ = await ask_asgi(to, "GET")
    assert status == 200


async def test_an_asgi_server_may_say_when_it_starts_and_ends(to: CollectorRegistry) -> None:
    said = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(said)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await make_asgi_app(to)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_websockets_are_refused(to: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="not over 'websocket'"):
        await make_asgi_app(to)({"type": "websocket"}, None, None)  # type: ignore[arg-type] # unused
