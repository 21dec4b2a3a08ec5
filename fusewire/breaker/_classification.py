"""What an exception or a result says about the dependency."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from fusewire._causes import causes_of
from fusewire._throttle import Throttle
from fusewire.breaker._states import Outcome
from fusewire.errors import CircuitOpenError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._settings import BreakerSettings

logger = logging.getLogger("fusewire.breaker")

_failures: dict[int, tuple[object, Throttle]] = {}
"""By the identity of a classifier, which may be asked about every call: it, and what it raised."""

_MOST_CLASSIFIERS = 64

CANCELLED_BY_CALLER = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""What a call ends with when its caller stops waiting: a failure after ``max_wait`` seconds."""

CANCELLATIONS = (
    *CANCELLED_BY_CALLER,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
)
"""Exceptions by which a caller abandons a call. Apart from ``max_wait`` they never count, whatever
``expected_exceptions`` says."""

_GRAVEST_FIRST = (Outcome.FAILURE, Outcome.SUCCESS, Outcome.IGNORED)


def classify_error(settings: BreakerSettings, error: BaseException) -> Outcome:
    """Return what a call that ended with `error` says about the dependency.

    A rejection by another circuit says nothing, because nothing was sent to this dependency. Nor
    does a wrong use of the library. A group is classified by the errors in it: one failure is
    enough.
    """
    if isinstance(error, CANCELLATIONS):
        return Outcome.IGNORED
    if settings.classify_exception is not None:
        said = _ask(settings.classify_exception, error)
        if said is not None:
            return said
    if isinstance(error, (CircuitOpenError, SettingsError, *settings.ignored_exceptions)):
        return Outcome.IGNORED
    if isinstance(error, BaseExceptionGroup):
        said_of_each = {classify_error(settings, each) for each in error.exceptions}
        return next(each for each in _GRAVEST_FIRST if each in said_of_each)
    if isinstance(error, settings.expected_exceptions):
        return Outcome.FAILURE
    return Outcome.IGNORED


def classify_result(classify: Callable[[Any], Outcome], result: object) -> Outcome:
    """Return what a call that returned `result` says. If the classifier fails, it is a success."""
    return _ask(classify, result) or Outcome.SUCCESS


def _ask(classify: Callable[[Any], Outcome | None], subject: object) -> Outcome | None:
    try:
        said: object = classify(subject)
        if said is None or isinstance(said, Outcome):
            return said
        if type(said) is CoroutineType:
            said.close()
        raise TypeError(f"a classifier must return an Outcome, got {said!r}")  # noqa: TRY301 - logged as what else it raises is
    except (Exception, SystemExit) as failed:
        # Neither what it was asked about nor its text: both may hold what must not be logged.
        for each in causes_of(failed):
            if each.__context__ is subject:
                each.__context__ = None
            if each.__cause__ is subject:
                each.__cause__ = None
        if (more := _failures_of(classify).more(failed)) is not None:
            kind = type(subject).__qualname__
            logger.exception("the classifier %r failed on an object of %s%s", classify, kind, more)
        return None


def _failures_of(classify: object) -> Throttle:
    if len(_failures) >= _MOST_CLASSIFIERS:
        _failures.clear()
    return _failures.setdefault(id(classify), (classify, Throttle()))[1]
