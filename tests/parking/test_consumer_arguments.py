"""A consumer's arguments are checked when it is made, and its source queue when it is entered."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry, CircuitBreaker
from fusewire.errors import QueueNotFoundError, SettingsError
from fusewire.parking import ParkingConsumer
from tests.support.payments import CHARGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.parking.conftest import Bench


async def test_a_missing_source_queue_is_reported_before_anything_runs(bench: Bench) -> None:
    consumer = ParkingConsumer(bench.broker, queue="nowhere", handler=lambda message: None)
    with pytest.raises(QueueNotFoundError, match="nowhere"):
        await consumer.__aenter__()


def _yields(message: object) -> Iterator[object]:
    yield message


async def _yields_on_the_loop(message: object) -> AsyncIterator[object]:
    yield message


async def _handles(message: object) -> None:
    pass


class _Yielding:
    def __call__(self, message: object) -> Iterator[object]:
        yield message

    async def handle(self, message: object) -> AsyncIterator[object]:
        yield message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"concurrency": 0}, r"concurrency must be .* got 0"),
        ({"concurrency": True}, r"concurrency must be .* got True"),
        ({"on_open": "stop"}, r"on_open must be .* got 'stop'"),
        ({"replay": "one"}, r"replay must be a ReplayPolicy, or None, got 'one'"),
        ({"retry": {"max_attempts": 3}}, r"retry must be a RetryPolicy, or None, got {"),
        ({"shutdown_timeout": float("nan")}, r"shutdown_timeout must be .* got nan"),
        ({"queue": ""}, "queue must be a non-empty string"),
        ({"depends_on": ["a", ""]}, "''"),
        (
            {"depends_on": CircuitBreaker("payments")},
            r"must be a breaker's name, got .*; write 'payments'",
        ),
        (
            {"depends_on": [CircuitBreaker("payments")]},
            r"must be a breaker's name, got .*; write 'payments'",
        ),
        (
            {"depends_on": lambda: "payments"},
            r"depends_on must be a function that takes a message, got .* cannot be called so",
        ),
        ({"depends_on": _yields}, r"depends_on must be .* got .*, a generator function"),
        ({"depends_on": _handles}, r"depends_on must be .* got .*, a coroutine function"),
        ({"operation_id": _handles}, r"operation_id must be .* got .*, a coroutine function"),
        (
            {"operation_id": lambda: "a"},
            r"operation_id must be a function that takes a message, got .* cannot be called so",
        ),
        ({"operation_id": "a"}, r"operation_id must be .* got 'a'"),
        ({"lanes": {"x": "payments"}}, "must be a list of names of breakers"),
        ({"lanes": {"x": ["p"], "y": ["p"]}}, "lanes must name each breaker once"),
        ({"handler": None}, r"handler must be .* got None"),
        ({"handler": _yields}, r"got .*_yields, a generator function"),
        ({"handler": _yields_on_the_loop}, r"got .*_yields_on_the_loop, a generator function"),
        ({"handler": partial(_yields, message=None)}, r"got .*_yields, a generator function"),
        ({"handler": _Yielding()}, r"got .*_Yielding, a generator function"),
        ({"handler": _Yielding().handle}, r"got .*handle, a generator function"),
        ({"handler": _Yielding}, r"got .*_Yielding, a class"),
        ({"handler": CircuitBreaker("payments")}, "and not a breaker, got"),
        ({"handler": lambda: None}, "takes a message, got .* cannot be called so"),
        ({"handler": lambda message, stub: None}, "missing a required argument: 'stub'"),
        ({"address": "redis://localhost"}, "redis"),
        ({"address": None}, r"must be .*, got None; is a variable not set"),
        ({"address": ""}, r"must be .*, got ''; is a variable not set"),
        ({"address": "sqlite:///:memory:"}, "outlive the process"),
        ({"address": ":memory:"}, "':memory:'"),
        ({"handler_timeout": 0}, r"handler_timeout must be .* got 0"),
        ({"handler_timeout": float("inf")}, r"handler_timeout must be .* got inf"),
        ({"concurrency": 65536}, "from 1 to 65535"),
        ({"concurrency": 65535, "on_open": "pause"}, "from 1 to 65534"),
        (
            {"handler_timeout": timedelta(seconds=5)},
            r"handler_timeout must be .* got .*; write 5\.0, its total_seconds",
        ),
        ({"shutdown_timeout": "5s"}, r"shutdown_timeout must be .* got '5s'"),
        (
            {"guard_with": CircuitBreaker("payments")},
            r"must be a breaker's name, got .*; write 'payments'",
        ),
        ({"guard_with": ""}, "guard_with must be a non-empty string, got ''"),
        ({"registry": {}}, "registry must be a BreakerRegistry, or None, got {}"),
        (
            {"depends_on": CHARGE[:-1]},
            f"a method of .* got '{CHARGE[:-1]}'; did you mean '{CHARGE}'",
        ),
        ({"guard_with": f"{CHARGE}d"}, f"did you mean '{CHARGE}'"),
        ({"lanes": {"money": [f"{CHARGE}s"]}}, f"lanes.'money'.*did you mean '{CHARGE}'"),
    ],
)
def test_a_wrong_argument_is_named_when_the_consumer_is_made(
    arguments: dict[str, object], named: str
) -> None:
    options: dict[str, object] = {
        "address": "amqp://localhost",
        "queue": "q",
        "handler": lambda message: None,
        **arguments,
    }
    with pytest.raises(SettingsError, match=named):
        ParkingConsumer(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [CHARGE, "/shop.v1.Unheard/Of", "payments", "/payments", "a/b/c"])
def test_a_name_that_may_be_meant_is_taken(name: str) -> None:
    ParkingConsumer("amqp://localhost", queue="q", handler=print, depends_on=name, guard_with=name)


def test_a_consumer_that_is_made_has_calls_measured_from_then_on() -> None:
    registry = BreakerRegistry()
    ParkingConsumer("sqlite:///x.db", queue="orders", handler=_handles, registry=registry)
    assert registry.get(CHARGE).durations is not None


async def test_running_without_entering_says_how(bench: Bench) -> None:
    consumer = ParkingConsumer(bench.broker, queue=bench.queue, handler=lambda message: None)
    with pytest.raises(RuntimeError, match="async with ParkingConsumer"):
        await consumer.run()
