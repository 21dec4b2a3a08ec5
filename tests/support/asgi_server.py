"""A real HTTP server for an ASGI application, on loopback, in a thread."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator


class Answer(NamedTuple):
    """What an HTTP server answered."""

    status: int
    text: str
    headers: Any


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve `app` for the block. Yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="on", log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until_sync(lambda: server.started or not thread.is_alive())
        assert server.started, "the application did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def ask(address: str, method: str = "GET") -> Answer:
    """Ask it like a probe does: an answer of 503 is an answer."""
    request = urllib.request.Request(address, method=method)  # noqa: S310 - of our own server
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - see above
            return Answer(response.status, response.read().decode(), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), error.headers)
