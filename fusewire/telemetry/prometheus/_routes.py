"""Routes for programs that serve HTTP themselves."""

from __future__ import annotations

import gzip
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from fusewire._validation import check, instance_of
from fusewire.telemetry._asgi import answer_lifespan
from fusewire.telemetry.prometheus._processes import shares_scrapes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

    from fusewire.telemetry._asgi import Receive, Scope, Send


def make_asgi_app(
    to: CollectorRegistry = REGISTRY,
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an ASGI application that serves the metrics of `to`, for any path.

    It reads and renders them in a thread, so that the event loop goes on meanwhile.

    Raises:
        SettingsError: ``PROMETHEUS_MULTIPROC_DIR`` is set and cannot be used.
    """
    page = _Page(to)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"metrics are served over HTTP, not over {scope['type']!r}")
        sent = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, headers, body = await anyio.to_thread.run_sync(
            partial(
                page.answer,
                scope["method"],
                sent.get(b"accept", ""),
                sent.get(b"accept-encoding", ""),
            )
        )
        await send(
            {
                "type": "http.response.start",
                "status": int(status[:3]),
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return app


def make_wsgi_app(
    to: CollectorRegistry = REGISTRY,
) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Return a WSGI application that serves the metrics of `to`, for any path.

    Raises:
        SettingsError: ``PROMETHEUS_MULTIPROC_DIR`` is set and cannot be used.
    """
    page = _Page(to)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, headers, body = page.answer(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_ACCEPT", ""),
            environ.get("HTTP_ACCEPT_ENCODING", ""),
        )
        start_response(status, headers)
        return [body]

    return app


class _Page:
    """Answers requests for the metrics of `to`, or of all processes if they share a scrape."""

    def __init__(self, to: CollectorRegistry) -> None:
        check("to", to, instance_of(CollectorRegistry))
        self._to = to
        if shares_scrapes():
            self._to = CollectorRegistry()
            self._to.register(_KnownValues())

    def answer(
        self, method: str, accept: str, accept_encoding: str
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status, headers and body."""
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")], b""
        encode, content_type = choose_encoder(accept)
        body = encode(self._to)
        headers = [("Content-Type", content_type)]
        if _takes_gzip(accept_encoding):
            # The fastest level: text of a scrape shrinks to a twentieth even so.
            body = gzip.compress(body, compresslevel=1)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        return "200 OK", headers, b"" if method == "HEAD" else body


class _KnownValues:
    """What all processes have written, without the gauges that none knows."""

    def __init__(self) -> None:
        self._processes: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call] # it has no types

    def collect(self) -> Iterator[Metric]:
        """Read the files of all processes."""
        for family in self._processes.collect():
            family.samples = [each for each in family.samples if math.isfinite(each.value)]
            yield family


def _takes_gzip(accept_encoding: str) -> bool:
    for each in accept_encoding.split(","):
        name, _, weight = each.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0")
    return False
