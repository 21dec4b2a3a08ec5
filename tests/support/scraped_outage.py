"""The demo's outage, as a Prometheus saw it that scraped the demo each second."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.demo._config import Plan
from fusewire.demo._scenario import Demo
from tests.support.ports import reserve_port
from tests.support.prometheus import Prometheus
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.demo._course import Course
    from fusewire.demo._report import Report

_CIRCUITS = "circuit_breaker_state"
_PROCESSES = 2  # each has one circuit

MONITORING = Path(__file__).parents[2] / "monitoring"
JOB = "shop"


_SAMPLES = 4
"""Scrapes of each circuit before the restart, so that rates and rules have values."""

_LIMIT = 60.0  # seconds, for a Prometheus on a busy machine


class _Steps:
    """Notes when each step was, in seconds since 1970.

    Before the restart and at the end it waits until Prometheus has seen enough. The demo's
    processes go on meanwhile.
    """

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.at: dict[str, float] = {}

    def say(self, at: float, what: str) -> None:
        del at
        if "restarted" in what:
            until_sync(self._has_samples, "the circuits were scraped", limit=_LIMIT)
        elif "all is done" in what:
            # The rules are evaluated a second after what they are of, at most.
            end = time.time() + 2
            until_sync(lambda: self._has_seen(end), "the end was scraped", limit=_LIMIT)
        self.at[what] = time.time()

    def _has_samples(self) -> bool:
        found = self._prometheus.query(f"count_over_time({_CIRCUITS}[5m])")
        return len(found) == _PROCESSES and all(count >= _SAMPLES for _, count in found)

    def _has_seen(self, end: float) -> bool:
        found = self._prometheus.query(f"timestamp({_CIRCUITS})")
        return len(found) == _PROCESSES and all(at >= end for _, at in found)

    def show(self, course: Course) -> None:
        pass

    def of(self, part: str) -> float:
        (found,) = [at for what, at in self.at.items() if part in what]
        return found


class ScrapedOutage:
    """What there is after the outage.

    Attributes:
        prometheus: which scraped it, running.
        instance: the label of what the client's process shows.
        moments: times since 1970: ``closed`` before the demo's restart, which may open circuits,
            ``open`` at the end of the outage, ``replay`` soon after it and ``after`` at the end.
        report: the demo's own.
    """

    def __init__(
        self, prometheus: Prometheus, instance: str, report: Report, steps: _Steps
    ) -> None:
        back = steps.of("the server is back")
        self.prometheus = prometheus
        self.instance = instance
        self.report = report
        self.moments = {
            "closed": steps.of("the server is restarted") - 0.2,
            "open": back - 0.5,
            "replay": back + 3.0,
            "after": steps.of("all is done"),
        }


@contextmanager
def scraped_outage() -> Iterator[ScrapedOutage]:
    """Run the demo beside a Prometheus that scrapes it."""
    port = _two_free_ports()
    addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
    rules = [MONITORING / "rules.yml", MONITORING / "alerts.yml"]
    with ExitStack() as stack:
        prometheus = stack.enter_context(Prometheus({JOB: addresses}, rules=rules))
        steps = _Steps(prometheus)
        report = asyncio.run(Demo(Plan(healthy=16.0, metrics=addresses[0]), steps).run())
        yield ScrapedOutage(prometheus, addresses[0], report, steps)


def _two_free_ports() -> int:
    """Return a free port after which another free one comes."""
    first, second = reserve_port(), reserve_port()
    while second != first + 1:
        first, second = second, reserve_port()
    return first
