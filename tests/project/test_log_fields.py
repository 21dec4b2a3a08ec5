"""Programs that read the log find our fields, whatever formats it."""

from __future__ import annotations

import logging

import pytest

from fusewire._log_fields import fields
from tests.support.logs import PIPELINES, read_log


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_fields_come_through(pipeline: str) -> None:
    logger = logging.getLogger("fusewire.parking")
    with read_log(pipeline) as log:
        logger.info(
            "%d wait", 3, extra=fields("lane.parking", lane="payments", seconds=1.5, at=None)
        )
    (record,) = log.records()
    assert record["message"] == "3 wait"
    assert record["fusewire_event"] == "lane.parking"
    assert log.of("lane.parking") == [{"lane": "payments", "seconds": 1.5}]
    assert "INFO" in log.text.upper()
    assert "fusewire.parking" in log.text


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_traceback_comes_through(pipeline: str) -> None:
    logger = logging.getLogger("fusewire.parking")
    with read_log(pipeline) as log:
        error = ValueError("no such account")
        logger.warning("failed", exc_info=error, extra=fields("message.failed"))
    assert "ValueError: no such account" in log.text
    assert log.of("message.failed") == [{}]
