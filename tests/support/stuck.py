"""A pytest-xdist worker says what a test was at that took too long, before it ends.

pytest-timeout ends the process, because an event loop that was interrupted serves no other test. It
says why on the standard output, which a worker does not have.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = pytest.StashKey[int]()


class Settings(Protocol):
    """What is used of pytest-timeout's settings of a test."""

    timeout: float


def keep_stderr(config: pytest.Config) -> None:
    """Keep a worker's standard error, before tests have theirs captured."""
    config.stash[_STDERR] = os.dup(2)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool | None:
    """End a worker by a timer of ours; a test that is run by no worker has pytest-timeout's."""
    if _STDERR not in item.config.stash:
        return None
    timer = threading.Timer(settings.timeout, _end, (item, settings.timeout))
    timer.daemon = True

    def cancel() -> None:
        timer.cancel()
        timer.join()

    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # pytest-timeout calls it
    timer.start()
    return True


def _end(item: pytest.Item, timeout: float) -> None:
    stderr = item.config.stash[_STDERR]
    try:
        log = item.config.pluginmanager.get_plugin("logging-plugin")
        said = log.report_handler.stream.getvalue() if log else ""
        lines = [
            f"\n{item.nodeid} took more than {timeout:g} s. What it logged, its tasks and threads:",
            said.rstrip(),
            *_tasks(),
        ]
        os.write(stderr, "\n".join(lines).encode("utf-8", "backslashreplace") + b"\n\n")
        faulthandler.dump_traceback(stderr, all_threads=True)
    finally:
        os._exit(1)


def _tasks() -> Iterator[str]:
    gc.unfreeze()  # get_objects knows nothing of what is frozen
    loops = [one for one in gc.get_objects() if issubclass(type(one), asyncio.AbstractEventLoop)]
    for loop in loops:
        for task in asyncio.all_tasks(loop):
            yield f"\nTask {task.get_name()}, which awaits:"
            yield from _awaits(task.get_coro())


def _awaits(awaitable: object) -> Iterator[str]:
    """Yield where a coroutine stands, and where what it awaits stands."""
    while awaitable is not None:
        if frame := _first(awaitable, "cr_frame", "ag_frame", "gi_frame"):
            yield f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        awaitable = _first(awaitable, "cr_await", "ag_await", "gi_yieldfrom")


def _first(of: object, *names: str) -> Any:
    return next((found for name in names if (found := getattr(of, name, None)) is not None), None)
