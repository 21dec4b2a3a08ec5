"""The status of one service of grpc.health.v1 follows a verdict, on real servers of both kinds."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health as official

from fusewire.errors import SettingsError
from fusewire.telemetry.health import Health, Verdict, aio_report_status, report_status
from tests.support.grpc_health_server import NOT_SERVING, SERVING, aio_health_server, health_server
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry

SERVICE = "payments.readiness"


@pytest.fixture
def health(registry: BreakerRegistry) -> Health:
    registry.get("payment-service")
    return Health(registry, ready_needs=["payment-service"], clock=iter(range(10**6)).__next__)


class Fails:
    """A verdict that cannot be read, now and then."""

    def __init__(self) -> None:
        self.fails = False
        self.asked = 0
        self.verdict = Verdict()

    def __call__(self) -> Verdict:
        self.asked += 1
        if self.fails:
            raise RuntimeError("cannot be read")
        return self.verdict


def test_the_status_follows_the_verdict(health: Health, registry: BreakerRegistry) -> None:
    with health_server() as (servicer, probe):
        with report_status(health.readiness, servicer, service=SERVICE):
            assert probe.check(SERVICE) == SERVING
            registry.get("payment-service").force_open()
            until_sync(lambda: probe.check(SERVICE) == NOT_SERVING)
            registry.get("payment-service").automatic()
            until_sync(lambda: probe.check(SERVICE) == SERVING)
        assert probe.check(SERVICE) == NOT_SERVING


def test_a_watch_hears_of_changes_and_of_nothing_else(
    health: Health, registry: BreakerRegistry
) -> None:
    asked = 0

    def readiness() -> Verdict:
        nonlocal asked
        asked += 1
        return health.readiness()

    with health_server() as (servicer, probe):
        with report_status(readiness, servicer, service=SERVICE):
            watch = probe.watch(SERVICE)
            assert next(watch) == SERVING
            before = asked
            until_sync(lambda: asked > before + 3)
            registry.get("payment-service").force_open()
            assert next(watch) == NOT_SERVING
            registry.get("payment-service").automatic()
            assert next(watch) == SERVING
        assert next(watch) == NOT_SERVING


def test_two_services_may_follow_two_verdicts_and_no_other_is_touched(
    health: Health, registry: BreakerRegistry
) -> None:
    registry.get("payment-service").force_open()
    with health_server() as (servicer, probe):
        servicer.set("", NOT_SERVING)
        servicer.set("payments.Payments", SERVING)
        with (
            report_status(health.readiness, servicer, service=SERVICE),
            report_status(health.liveness, servicer, service="payments.liveness"),
        ):
            assert probe.check(SERVICE) == NOT_SERVING
            assert probe.check("payments.liveness") == SERVING
            assert probe.check("") == NOT_SERVING
            assert probe.check("payments.Payments") == SERVING
        assert probe.check("") == NOT_SERVING
        assert probe.check("payments.Payments") == SERVING


def test_a_verdict_that_cannot_be_read_is_logged_and_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdict = Fails()
    with (
        health_server() as (servicer, probe),
        report_status(verdict, servicer, service=SERVICE),
    ):
        verdict.fails = True
        until_sync(lambda: caplog.records)
        assert probe.check(SERVICE) == SERVING
        verdict.verdict = Verdict(("down",))
        verdict.fails = False
        until_sync(lambda: probe.check(SERVICE) == NOT_SERVING)
    record = caplog.records[0]
    assert record.levelno == logging.ERROR
    assert record.message == "the status of service 'payments.readiness' stays what it is"
    assert record.exc_info is not None


def test_a_server_that_shuts_down_keeps_saying_so(health: Health) -> None:
    with (
        health_server() as (servicer, probe),
        report_status(health.readiness, servicer, service=SERVICE),
    ):
        servicer.enter_graceful_shutdown()
        assert probe.check(SERVICE) == NOT_SERVING


async def test_the_status_of_an_asyncio_server_follows_the_verdict(
    health: Health, registry: BreakerRegistry
) -> None:
    breaker = registry.get("payment-service")
    async with aio_health_server() as (servicer, probe):
        async with aio_report_status(health.readiness, servicer, service=SERVICE):
            watch = probe.watch(SERVICE)
            assert await anext(watch) == SERVING
            breaker.force_open()
            assert await anext(watch) == NOT_SERVING
            assert await probe.check(SERVICE) == NOT_SERVING
            breaker.automatic()
            assert await anext(watch) == SERVING
            assert await probe.check("") == SERVING
        assert await anext(watch) == NOT_SERVING
        await watch.aclose()


async def test_a_verdict_of_an_asyncio_server_that_cannot_be_read_is_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdict = Fails()
    async with (
        aio_health_server() as (servicer, probe),
        aio_report_status(verdict, servicer, service=SERVICE),
    ):
        verdict.fails = True
        await until(lambda: caplog.records)
        assert await probe.check(SERVICE) == SERVING
        verdict.verdict, verdict.fails = Verdict(("down",)), False
        watch = probe.watch(SERVICE)
        assert await anext(watch) == SERVING
        assert await anext(watch) == NOT_SERVING
        await watch.aclose()
    assert caplog.messages[0] == "the status of service 'payments.readiness' stays what it is"


async def test_a_body_that_fails_ends_the_report_too(health: Health) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="of the body"):
        async with aio_report_status(
            health.readiness, official.aio.HealthServicer(), service=SERVICE
        ):
            raise RuntimeError("of the body")
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("service", ["", None, 3])
async def test_the_empty_name_is_the_applications(health: Health, service: Any) -> None:
    servicer: Any = None
    message = "service must be the name of one service, got"
    with (
        pytest.raises(SettingsError, match=message),
        report_status(health.readiness, servicer, service=service),
    ):
        pass
    with pytest.raises(SettingsError, match=message):
        async with aio_report_status(health.readiness, servicer, service=service):
            pass


def test_a_verdict_is_given_as_a_function(health: Health) -> None:
    verdict: Any = health.readiness()
    servicer: Any = None
    with (
        pytest.raises(SettingsError, match="verdict must be a function"),
        report_status(verdict, servicer, service=SERVICE),
    ):
        pass
