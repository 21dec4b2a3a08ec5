"""The routes, on a real HTTP server and under the mounts of other applications."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.errors import SettingsError
from fusewire.telemetry.health import Health, make_asgi_app
from tests.support.asgi_server import ask, serving
from tests.support.consumer_status import NOW, FakeConsumer

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

PROBES = ["/startupz", "/readyz", "/livez"]


@pytest.fixture
def consumer() -> FakeConsumer:
    return FakeConsumer()


@pytest.fixture
def health(registry: BreakerRegistry, consumer: FakeConsumer) -> Health:
    """A report for each question."""
    return Health(
        registry,
        consumers=[consumer],
        ready_needs=["payment-service"],
        clock=iter(range(10**6)).__next__,
    )


@pytest.fixture
def address(health: Health) -> Iterator[str]:
    with serving(make_asgi_app(health)) as address:
        yield address


def statuses(address: str) -> dict[str, int]:
    return {path: ask(address + path).status for path in (*PROBES, "/health")}


@pytest.mark.parametrize("path", PROBES)
def test_a_probe_gets_text(address: str, path: str) -> None:
    answer = ask(address + path)
    assert (answer.status, answer.text) == (200, "ok\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


def test_without_details_nothing_but_the_status_is_shown(
    address: str, registry: BreakerRegistry
) -> None:
    registry.get("payment-service").force_open()
    assert json.loads(ask(address + "/health").text) == {"status": "OUT_OF_SERVICE"}
    for path in PROBES:
        assert ask(address + path).text in ("ok\n", "failing\n")


def test_routes_follow_their_verdicts(
    address: str, registry: BreakerRegistry, consumer: FakeConsumer
) -> None:
    all_well = {"/startupz": 200, "/readyz": 200, "/livez": 200, "/health": 200}
    assert statuses(address) == all_well
    registry.get("stock").force_open()
    assert statuses(address) == all_well
    registry.get("payment-service").force_open()
    assert statuses(address) == {**all_well, "/readyz": 503, "/health": 503}
    registry.get("payment-service").automatic()
    consumer.becomes(loop_turned_at=NOW - 61)
    assert statuses(address) == {**all_well, "/livez": 503, "/health": 503}
    assert json.loads(ask(address + "/health").text) == {"status": "DOWN"}
    assert ask(address + "/livez").text == "failing\n"


def test_other_paths_and_methods_are_refused(address: str) -> None:
    for path in ("/", "/healthz", "/readyz/x", "/xreadyz"):
        assert ask(address + path).status == 404
    answer = ask(address + "/readyz", "POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert ask(address + "/nothing", "POST").status == 404


def test_a_head_request_gets_headers_alone(address: str) -> None:
    answer = ask(address + "/readyz", "HEAD")
    assert (answer.status, answer.text, answer.headers["content-length"]) == (200, "", "3")


def test_a_query_and_a_slash_at_the_end_change_nothing(address: str) -> None:
    assert ask(address + "/readyz?verbose").status == 200
    assert ask(address + "/readyz/").status == 200


def test_details_are_json(health: Health, registry: BreakerRegistry) -> None:
    registry.get("payment-service")
    with serving(make_asgi_app(health, show_details=True)) as address:
        answer = ask(address + "/health")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    shown = json.loads(answer.text)
    assert shown["components"]["circuitBreakers"]["details"]["payment-service"]["status"] == "UP"
    assert shown["components"]["consumers"]["details"]["orders"]["status"] == "UP"


def http(path: str, root_path: str = "") -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "root_path": root_path}


def status_of(app: Any, scope: dict[str, Any]) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is waited for")

    asyncio.run(app(scope, receive, send))
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (http("/internal/readyz", "/internal"), 200),  # as ASGI says, and Starlette does
        (http("/readyz", "/internal"), 200),  # as older frameworks do
        (http("/readyz"), 200),
        ({"type": "http", "method": "GET", "path": "/readyz"}, 200),
        (http("/elsewhere/readyz", "/internal"), 404),
    ],
)
def test_the_application_may_be_mounted(scope: dict[str, Any], status: int) -> None:
    assert status_of(make_asgi_app(Health(BreakerRegistry())), scope) == status


def test_a_websocket_is_refused(health: Health) -> None:
    with pytest.raises(ValueError, match="only HTTP is answered here, got a scope of type 'web"):
        status_of(make_asgi_app(health), {"type": "websocket", "path": "/readyz"})


def test_details_are_shown_only_on_a_plain_yes(health: Health) -> None:
    with pytest.raises(SettingsError, match="show_details must be True or False, got 'no'"):
        make_asgi_app(health, show_details="no")  # type: ignore[arg-type] # on purpose
