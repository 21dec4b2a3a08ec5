"""What a test leaves to the garbage collector must be harmless, and is blamed on that test.

A coroutine that nobody awaited, or an object that cannot be finalized, is reported when it is
collected. Where it is part of a cycle, that is by chance, in the middle of another test. So each
test ends with a collection, and what that finds is the error of the test that has just run.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


_GRPCIOS = "InterceptedCall.__del__"
"""Older releases of grpcio raise there again what an interceptor raised."""

_BEFORE = pytest.StashKey[dict[str, tuple[int, bool, bool]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave out of all later collections what is there before the first test: they are quick."""
    gc.collect()
    gc.freeze()


def _logger_settings() -> dict[str, tuple[int, bool, bool]]:
    return {
        name: (logger.level, logger.propagate, logger.disabled)
        for name, logger in logging.root.manager.loggerDict.copy().items()
        if isinstance(logger, logging.Logger)
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Note how the loggers are set before the test's fixtures begin."""
    item.stash[_BEFORE] = _logger_settings()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Collect what the test has left, when its fixtures have ended."""
    yield
    found: list[str] = []

    def note(left: sys.UnraisableHookArgs) -> None:
        if getattr(left.object, "__qualname__", "") == _GRPCIOS:
            return
        # As text: the object must not outlive its finalizer.
        found.append(f"{left.err_msg or 'Exception ignored in'}: {left.object!r}: {left.exc_value}")

    before, sys.unraisablehook = sys.unraisablehook, note
    try:
        gc.collect()
    finally:
        sys.unraisablehook = before
    if nextitem is None or nextitem.path != item.path:
        # What is there now stays, mostly modules: without them, a collection takes a tenth of the
        # time, which is otherwise longer than most tests. Fixtures of the file have ended.
        gc.freeze()
    before_test = item.stash[_BEFORE]
    changed = {
        name: (before_test[name], now)
        for name, now in _logger_settings().items()
        if before_test.get(name, now) != now
    }
    if changed:
        pytest.fail(f"{item.nodeid} has left loggers with other settings: {changed}")
    if found:
        raise pytest.PytestUnraisableExceptionWarning(
            f"{item.nodeid} has left this behind: {'; '.join(found)}"
        )
