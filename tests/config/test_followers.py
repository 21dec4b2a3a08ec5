"""Consumers that follow files: what changes in place, and what needs a restart, said once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from fusewire import BreakerRegistry, ParkedCalls, ParkingConsumer, ReplayPolicy, SettingsError
from fusewire.brokers import Message, open_broker
from fusewire.config import Watch, load
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.parking import MessageEvent


def say(file: Path, orders: str, more: str = "") -> None:
    file.write_text(f"fusewire: {{consumers: {{orders: {{{orders}}}{more}}}}}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fusewire.yaml"
    say(path, "retry: {max_attempts: 3}, replay: {rate: 5}")
    return path


@pytest.fixture
def watch(file: Path) -> Watch:
    return load(file, env={}).watching(BreakerRegistry())


def consumer_of(watch: Watch, file: Path, replay: ReplayPolicy | None = None) -> ParkingConsumer:
    return ParkingConsumer(
        f"sqlite:///{file}.db",
        queue="orders",
        handler=print,
        replay=replay or watch.config.consumer("orders").replay,
    )


def replay_of(consumer: ParkingConsumer) -> ReplayPolicy:
    return consumer._parts.replay


def test_limits_of_replays_change_in_place(
    file: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    consumer = consumer_of(watch, file)
    watch.add(consumer)
    assert caplog.messages == []
    say(file, "retry: {max_attempts: 3}, replay: {rate: 50, concurrency: 9, yields: 1.5}")
    assert watch.look() is True
    assert replay_of(consumer) == ReplayPolicy(rate=50, concurrency=9, yields=1.5)
    assert watch.restart_required is False
    (said,) = (
        record.getMessage()
        for record in caplog.records
        if vars(record)["fusewire_event"] == "consumer.configured"
    )
    assert said == (
        f"replays of 'orders' are configured: concurrency: 64 → 9 ({file}:1:91); "
        f"rate: 5 → 50 ({file}:1:74); yields: 0.75 → 1.5 ({file}:1:102)"
    )
    say(file, "retry: {max_attempts: 3}")
    watch.look()
    assert replay_of(consumer) == ReplayPolicy(), "what no file says is the library's"
    assert watch.restart_required is False


def test_a_consumer_that_is_added_later_gets_what_files_say_now(file: Path, watch: Watch) -> None:
    policies = watch.config.consumer("orders")
    say(file, "retry: {max_attempts: 3}, replay: {rate: 50}")
    watch.look()
    assert watch.restart_required is True
    consumer = consumer_of(watch, file, policies.replay)
    watch.add(consumer)
    assert replay_of(consumer).rate == 50
    assert watch.restart_required is False


def test_each_value_that_needs_a_restart_is_one_warning_until_it_is_taken_back(
    file: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch.add(consumer_of(watch, file))
    changed = "retry: {max_attempts: 4, delays: [1s, 2s]}, replay: {rate: 6, scope: cluster}"
    say(file, changed)
    watch.look()
    assert watch.restart_required is True
    assert watch.reload_figures().restart_required is True
    at = f"({file}:1:"
    said = [message.partition(at)[0].partition("['orders'].")[2] for message in caplog.messages]
    assert said == [
        "retry.max_attempts has changed: 3 → 4 ",
        "retry.delays has changed: [1, 5, 30, 120, 600] → [1, 2] ",
        "replay.scope has changed: replica → cluster ",
    ]
    assert all(text.startswith("restart the process: consumers[") for text in caplog.messages)
    assert {vars(record)["fusewire_event"] for record in caplog.records} == {
        "config.restart_required"
    }
    caplog.clear()
    say(file, f"{changed} # a comment\n")
    say(file, changed.replace("4", "5"))
    watch.look()
    assert len(caplog.messages) == 1, "the others were said"
    say(file, "retry: {max_attempts: 3}, replay: {rate: 6}")
    watch.look()
    assert watch.restart_required is False
    assert len(caplog.messages) == 1


def test_without_a_consumer_that_follows_the_warning_says_how(
    file: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch.config.consumer("orders")
    watch.config.consumer("mail")
    say(file, "retry: {max_attempts: 3}, replay: {rate: 6}", ", mail: {retry: {max_attempts: 9}}")
    watch.look()
    assert watch.restart_required is True
    mail, orders = caplog.messages
    assert mail.startswith("restart the process: consumers['mail'].retry.max_attempts has changed")
    assert orders.startswith(
        "restart the process, or give its consumer to Watch.add(): consumers['orders'].replay.rate "
        "has changed: 5 → 6 ("
    )


def test_queues_of_other_programs_need_no_restart_of_this_one(
    file: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    policies = "retry: {max_attempts: %d}, replay: {rate: 5}"
    forwarders = "}, forwarders: {charges: {broker: 'amqp://%s', target: 'pay:1'}"
    say(file, policies % 4, forwarders % "a")
    watch.look()
    say(file, policies % 5, forwarders % "b")
    watch.look()
    assert watch.reloads == 2
    assert (watch.restart_required, caplog.messages) == (False, [])
    watch.config.consumer("orders")
    say(file, policies % 6, forwarders % "c")
    watch.look()
    assert watch.restart_required is True
    (message,) = caplog.messages
    assert "consumers['orders'].retry.max_attempts has changed: 3 → 6" in message


def test_a_value_from_a_variable_is_not_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    say(file, "retry: {max_attempts: '${MOST:3}'}")
    env: dict[str, str] = {}
    watch = load(file, env=env).watching(BreakerRegistry())
    watch.config.consumer("orders")
    env["MOST"] = "8675309"
    watch.look()
    (message,) = caplog.messages
    assert "8675309" not in message
    assert "the value of ${MOST}, which is not shown" in message


def test_replays_of_which_no_file_says_anything_are_codes(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say(file, "retry: {max_attempts: 3}")
    watch = load(file, env={}).watching(BreakerRegistry())
    consumer = consumer_of(watch, file, ReplayPolicy(rate=8))
    watch.add(consumer)
    say(file, "retry: {max_attempts: 3}, replay: {}", ", mail: {}")
    watch.look()
    assert replay_of(consumer) == ReplayPolicy(rate=8)
    say(file, "retry: {max_attempts: 3}, replay: {concurrency: 3}")
    watch.look()
    assert replay_of(consumer) == ReplayPolicy(concurrency=3)
    assert caplog.messages == []


def test_a_consumer_follows_until_it_is_ended(file: Path, watch: Watch) -> None:
    consumer = consumer_of(watch, file)
    end = watch.add(consumer)
    with pytest.raises(SettingsError, match="was added already"):
        watch.add(consumer)
    end()
    end()
    say(file, "replay: {rate: 50}")
    watch.look()
    assert replay_of(consumer).rate == 5
    watch.add(consumer)
    assert replay_of(consumer).rate == 50


def test_stored_calls_follow_too(file: Path, watch: Watch) -> None:
    calls = ParkedCalls(f"sqlite:///{file}.db", queue="orders")
    watch.add(calls)
    assert calls._forwarding.replay.rate == 5
    say(file, "replay: {rate: 50}")
    watch.look()
    assert calls._forwarding.replay.rate == 50


FORWARDER = "fusewire: {forwarders: {charges: {broker: '%s', target: '%s', lanes: {pay: [%s]}}}}"


def test_a_forwarder_needs_a_restart_and_no_password_is_told(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(FORWARDER % ("amqp://a:secret1@host", "pay:1", "a"))
    watch = load(file, env={}).watching(BreakerRegistry())
    watch.config.consumer("charges")
    file.write_text(FORWARDER % ("amqp://a:secret2@host", "pay:2", "b"))
    watch.look()
    assert watch.restart_required is True
    subject = "restart the process: forwarders['charges']"
    assert [message.partition(f" ({file}")[0] for message in caplog.messages] == [
        f"{subject}.broker has changed: amqp://a:***@host → amqp://a:***@host",
        f"{subject}.lanes.pay has changed: [a] → [b]",
        f"{subject}.target has changed: pay:1 → pay:2",
    ]


def test_what_readiness_needs_is_a_value_too(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    spring = "resilience4j.circuitbreaker.instances.a: {allowHealthIndicatorToFail: %s}"
    file.write_text(spring % "false")
    watch = load(file, env={}).watching(BreakerRegistry())
    file.write_text(spring % "true")
    watch.look()
    assert caplog.messages == ["restart the process: ready_needs has changed: [] → [a]"]


async def test_a_consumer_that_runs_replays_by_a_changed_file(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    say(file, "replay: {rate: 0.001}")
    replayed: list[MessageEvent] = []
    registry = BreakerRegistry()

    async def handle(_: object) -> None:
        await asyncio.sleep(0)

    with load(file, env={}).watching(registry, every=0.01) as watch:
        consumer = ParkingConsumer(
            f"sqlite:///{file}.db",
            queue="orders",
            handler=handle,
            depends_on="payments",
            registry=registry,
            replay=watch.config.consumer("orders").replay,
        )
        watch.add(consumer)
        consumer.add_listener(replayed.append)
        async with open_broker(f"sqlite:///{file}.db") as broker:
            await broker.create_queue("orders")
            await broker.create_queue("orders.parked.payments")
            for number in range(5):
                message = Message(body=b"", message_id=f"m{number}")
                await broker.publish("orders.parked.payments", message)
        async with consumer:
            running = asyncio.create_task(consumer.run(handle_signals=False))
            await until(lambda: replayed)
            say(file, "replay: {rate: 500}")
            await until(lambda: len(replayed) == 5)
            consumer.stop()
            await running
