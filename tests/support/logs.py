"""The log as programs read it: records as JSON, by python-json-logger and by structlog."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fusewire._log_fields import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _python_json_logger() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 - only what a test asks for

    return JsonFormatter("%(levelname)s %(name)s %(message)s %(created)s")


def _structlog() -> logging.Formatter:
    import structlog  # noqa: PLC0415 - only what a test asks for

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(key="created"),
            structlog.stdlib.ExtraAdder(),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )


PIPELINES: dict[str, Callable[[], logging.Formatter]] = {
    "python-json-logger": _python_json_logger,
    "structlog": _structlog,
}
"""By the library's name."""


class Log:
    """What was logged, one JSON object for each record."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        """All of it, as it was written."""
        return self._stream.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """Return every record, in order."""
        records = [json.loads(line) for line in self.text.splitlines()]
        for record in records:
            record.setdefault("levelname", record.get("level", "").upper())  # structlog's name
        return records

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every record of one event, without their prefix."""
        return [ours(record) for record in self.records() if record.get(f"{PREFIX}event") == event]


def ours(record: dict[str, Any]) -> dict[str, Any]:
    """Return our fields of a record without their prefix, and without the event."""
    found = {
        name.removeprefix(PREFIX): value
        for name, value in record.items()
        if name.startswith(PREFIX)
    }
    del found["event"]
    return found


@contextmanager
def read_log(pipeline: str = "python-json-logger", *, logger: str = "fusewire") -> Iterator[Log]:
    """Read what is logged during the block at any level, through one of the `PIPELINES`."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PIPELINES[pipeline]())
    root = logging.getLogger(logger)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield Log(stream)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
