"""Policies are values: checked when they are made, shared, compared, printed, kept in files."""

from __future__ import annotations

import asyncio
import tomllib
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.errors import SettingsError
from fusewire.forwarding import ParkedCalls
from fusewire.parking import ParkingConsumer, ReplayPolicy, RetryPolicy
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.parking.conftest import Bench


async def _asynchronous(_error: BaseException) -> bool:
    return True


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_attempts": 0}, r"max_attempts must be a whole number of at least 1, got 0"),
        ({"max_attempts": True}, r"max_attempts must be .*, got True"),
        ({"delays": ()}, r"delays must be growing seconds .*, got \(\)"),
        ({"delays": (5, 1)}, r"delays must be growing seconds .*, got \(5, 1\)"),
        ({"delays": ("5s",)}, r"delays must be growing seconds"),
        ({"delays": (float("nan"),)}, r"delays must be growing seconds"),
        ({"max_age": 0}, r"max_age must be .*, or None, got 0"),
        ({"max_age": float("nan")}, r"max_age must be .*, got nan"),
        ({"max_age": timedelta(hours=1)}, r"max_age must be .*; write 3600\.0, its total_seconds"),
        ({"dead_on": "ValueError"}, r"dead_on must be .*, got 'ValueError'"),
        ({"dead_on": (ValueError, "x")}, r"dead_on must be"),
        ({"dead_on": int}, r"dead_on must be"),
        ({"dead_on": _asynchronous}, r"dead_on must be .*, a coroutine function"),
        ({"dead_on": lambda: True}, r"dead_on must be a function that takes an exception"),
        (
            {"max_attemps": 3},
            r"RetryPolicy has no setting 'max_attemps'; did you mean max_at",
        ),
    ],
)
def test_a_retry_policy_that_cannot_be_right_is_refused(settings: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        RetryPolicy(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"concurrency": 0}, r"concurrency must be .*, got 0"),
        ({"concurrency": 65536}, r"concurrency must be a whole number from 1 to 65535"),
        ({"rate": 0}, r"rate must be a finite number of messages per second above 0, or None"),
        ({"rate": float("inf")}, r"rate must be .*, got inf"),
        ({"yields": 0}, r"yields must be a finite number above 0, got 0"),
        ({"yields": -1.5}, r"yields must be .*, got -1\.5"),
        ({"yields": float("nan")}, r"yields must be .*, got nan"),
        ({"yields": float("inf")}, r"yields must be .*, got inf"),
        ({"yields": True}, r"yields must be .*, got True"),
        ({"yields": None}, r"yields must be .*, got None"),
        ({"yields": "gentle"}, r"yields must be .*, got 'gentle'"),
        ({"yield": 1}, r"ReplayPolicy has no setting 'yield'; did you mean yields"),
        ({"scope": "clustre"}, r"scope must be .*, got 'clustre'; did you mean 'cluster'"),
        ({"concurency": 3}, r"ReplayPolicy has no setting 'concurency'; did you mean concurrency"),
    ],
)
def test_a_replay_policy_that_cannot_be_right_is_refused(settings: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ReplayPolicy(**settings)


FILE = """
[retry]
max_attempts = 8
delays = [1, 5, 30]
max_age = 86400

[replay]
concurrency = 4
rate = 2.5
yields = 1.5
scope = "cluster"
"""


def test_policies_are_made_of_the_tables_of_a_file() -> None:
    tables = tomllib.loads(FILE)
    retry, replay = RetryPolicy(**tables["retry"]), ReplayPolicy(**tables["replay"])
    assert retry == RetryPolicy(max_attempts=8, delays=(1, 5, 30), max_age=86400)
    assert replay == ReplayPolicy(concurrency=4, rate=2.5, yields=1.5, scope="cluster")
    assert {retry: 1, replay: 2}[RetryPolicy(**tables["retry"])] == 1
    assert "max_attempts=8" in repr(retry)


def test_without_settings_a_replica_replays_up_to_64_messages_of_a_lane_and_yields() -> None:
    assert ReplayPolicy() == ReplayPolicy(concurrency=64, rate=None, yields=0.75, scope="replica")


def test_two_consumers_and_parked_calls_share_one_policy() -> None:
    retry, replay = RetryPolicy(delays=(2, 4)), ReplayPolicy(scope="cluster")
    made: list[Any] = [
        ParkingConsumer("sqlite:///x.db", queue="a", handler=print, retry=retry, replay=replay),
        ParkingConsumer("sqlite:///x.db", queue="b", handler=print, retry=retry, replay=replay),
        ParkedCalls("sqlite:///x.db", queue="c", retry=retry, replay=replay),
    ]
    assert all(each.topology.delays == (2, 4) for each in made)
    assert all(each.topology.single for each in made)


FORMER: list[tuple[dict[str, Any], str, str]] = [
    ({"max_attempts": 3}, "max_attempts=3", "retry=RetryPolicy(max_attempts=3)"),
    ({"delay_tiers": [1, 2]}, "delay_tiers=[1, 2]", "retry=RetryPolicy(delays=[1, 2])"),
    ({"delay_tiers": range(1, 3)}, "delay_tiers=range(1, 3)", "retry=RetryPolicy(delays=(1, 2))"),
    ({"dead_on": KeyError}, "dead_on=<class", "retry=RetryPolicy(dead_on=<class"),
    ({"replay": "single"}, "replay='single'", "replay=ReplayPolicy(scope='cluster')"),
    ({"replay": "shared"}, "replay='shared'", "replay=ReplayPolicy(scope='replica')"),
    (
        {"max_age": 60, "replay_rate": 2, "replay_concurrency": 3},
        "max_age=60, replay_rate=2, replay_concurrency=3",
        "retry=RetryPolicy(max_age=60), replay=ReplayPolicy(rate=2, concurrency=3)",
    ),
]


@pytest.mark.parametrize("kind", [ParkingConsumer, ParkedCalls])
@pytest.mark.parametrize(("options", "former", "new"), FORMER)
def test_a_former_keyword_works_and_is_warned_of_with_the_new_call(
    kind: Any, options: dict[str, Any], former: str, new: str
) -> None:
    handler = {"handler": print} if kind is ParkingConsumer else {}
    with pytest.warns(DeprecationWarning, match=kind.__name__) as caught:
        made = kind("sqlite:///x.db", queue="a", **handler, **options)
    (warning,) = caught
    assert warning.filename == __file__
    said = str(warning.message)
    assert said.startswith(f"{kind.__name__}({former}")
    assert f"is deprecated: write {kind.__name__}({new}" in said
    assert made.topology.single == (options.get("replay") == "single")
    assert made.topology.delays == tuple(options.get("delay_tiers", RetryPolicy().delays))


@pytest.mark.parametrize("kind", [ParkingConsumer, ParkedCalls])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"retry": RetryPolicy(), "max_attempts": 3},
            r"retry or max_attempts, got both: write retry=RetryPolicy\(max_attempts=3, …\)",
        ),
        (
            {"replay": ReplayPolicy(), "replay_rate": 3},
            r"replay or replay_rate, got both: write replay=ReplayPolicy\(rate=3, …\)",
        ),
    ],
)
def test_a_policy_in_both_forms_is_refused(kind: Any, options: dict[str, Any], said: str) -> None:
    handler = {"handler": print} if kind is ParkingConsumer else {}
    with pytest.raises(SettingsError, match=rf"^{kind.__name__} must be given {said}"):
        kind("sqlite:///x.db", queue="a", **handler, **options)


def test_a_keyword_that_never_was_one_is_refused_with_the_nearest() -> None:
    wrong: Any = {"max_attempt": 3}
    with pytest.raises(TypeError, match=r"unexpected keyword.*'max_attempt'; did you mean max_a"):
        ParkingConsumer("sqlite:///x.db", queue="a", handler=print, **wrong)


async def test_former_keywords_do_what_the_policies_do(bench: Bench) -> None:
    tried = 0

    def handler(_message: object) -> None:
        nonlocal tried
        tried += 1
        raise ValueError("fails")

    await bench.send("a")
    with warnings.catch_warnings(action="ignore"):
        consumer = ParkingConsumer(
            bench.broker,
            queue=bench.queue,
            handler=handler,
            max_attempts=2,
            delay_tiers=(0.05, 0.2),
        )
    consumer.add_listener(bench.events.append)
    async with consumer:
        running = asyncio.create_task(consumer.run())
        await until(lambda: bench.happened("dead") == ["a"])
        consumer.stop()
        await asyncio.wait_for(running, 40)
    assert tried == 2
