"""docs/logs.md lists the events and fields that the code logs, and its examples work."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusewire._log_fields import fields
from fusewire.breaker import BreakerSettings, CallError, CircuitBreaker
from fusewire.breaker._log import _KINDS, _STILL_OPEN
from fusewire.testing import FakeClock
from tests.docs.examples import run_examples
from tests.support.logs import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "logs.md"
TEXT = PAGE.read_text("utf-8")


def calls() -> Iterator[ast.Call]:
    """Return the calls in the package that make the fields of a line."""
    for path in (ROOT / "fusewire").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
                if name in {"fields", "_fields"} and isinstance(node.args[0], ast.Constant):
                    yield node


def listed(table: str) -> set[str]:
    """Return the names in the first column of the table that begins with a word."""
    rows = TEXT.partition(f"| {table} |")[2].partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def events_of_circuits() -> set[str]:
    return {_STILL_OPEN[1], *(event for _, event, _ in _KINDS.values())}


def test_the_page_lists_every_event_and_no_other() -> None:
    logged = {call.args[0].value for call in calls() if isinstance(call.args[0], ast.Constant)}
    assert logged
    assert listed("event") == {str(event) for event in logged} | events_of_circuits()


def test_the_page_lists_the_fields_of_circuits() -> None:
    clock = FakeClock()
    settings = BreakerSettings(
        failure_threshold=None,
        window_calls=4,
        minimum_calls=1,
        failure_rate_threshold=0.5,
        log_messages=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    with read_log() as log:
        breaker.acquire().failure(error=CallError("grpc.RpcError", "UNAVAILABLE", "refused"))
        breaker.reset(by="ana", reason="it is back")
    names = {name for record in log.records() for name in record if name.startswith("fusewire_")}
    names = {name.removeprefix("fusewire_") for name in names}
    assert len(names) == 16
    assert names <= listed("field") | {"event"}


def test_the_page_lists_every_field() -> None:
    logged = {keyword.arg for call in calls() for keyword in call.keywords if keyword.arg}
    assert logged <= listed("field")


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    handlers = logging.getLogger().handlers
    filters = [list(handler.filters) for handler in handlers]
    levels = {name: logging.getLogger(name).level for name in ("", "fusewire")}
    try:
        yield run_examples(PAGE, {"__name__": "page"})
    finally:
        for handler, former in zip(handlers, filters, strict=False):
            handler.filters[:] = former
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def test_the_pages_pipeline_shows_the_fields(page: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"msg": "3 wait", "levelname": "INFO", "levelno": logging.INFO})
    record.__dict__.update(fields("lane.waiting", count=3))
    text = page["formatter"].format(record)
    assert '"fusewire_event": "lane.waiting"' in text
    assert '"fusewire_count": 3' in text


def test_the_pages_filter_leaves_tracebacks_out(page: dict[str, Any]) -> None:
    formatter = logging.Formatter()
    for name, shown in (("fusewire.parking", False), ("shop", True)):
        error = ValueError("card-4111")
        trace = (ValueError, error, error.__traceback__)
        record = logging.LogRecord(name, logging.ERROR, "", 0, "failed", None, trace)
        assert page["WithoutTracebacks"]().filter(record)
        assert ("card-4111" in formatter.format(record)) is shown


def test_the_page_lists_every_logger() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "fusewire").rglob("*.py"))
    loggers = set(re.findall(r'getLogger\("(fusewire\.[a-z.]+)"\)', code))
    loggers.remove("fusewire.demo")  # is no part of a user's program
    assert loggers == set(re.findall(r"`(fusewire\.[a-z.]+)`", TEXT.partition("\n## ")[0]))
