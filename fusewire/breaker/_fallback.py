"""Fallbacks: called with the same arguments if a call is rejected or fails."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fusewire.breaker._classification import classify_error, classify_result
from fusewire.breaker._results import comes_later
from fusewire.breaker._states import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.operation import current_operation, fallbacks_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fusewire.breaker._circuit import Circuit


def with_fallback(
    circuit: Circuit, guarded: Callable[..., Any], fallback: Callable[..., Any]
) -> Callable[..., Any]:
    """Let `fallback` answer if `guarded` is rejected or fails.

    If the result of `guarded` is pending, `guarded` has added the fallback to it itself.
    """

    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            result = guarded(*args, **kwargs)
        except BaseException as error:
            if not may_answer(circuit, error):
                raise
            return _answer(fallback, error, args, kwargs)
        if not comes_later(result) and _is_failure(circuit, result):
            return fallback(*args, **kwargs)
        return result

    return answered


def with_fallback_async(
    circuit: Circuit, guarded: Callable[..., Any], fallback: Callable[..., Any]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Let `fallback`, plain or async, answer if `guarded` is rejected or fails."""

    async def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await guarded(*args, **kwargs)
        except BaseException as error:
            if not may_answer(circuit, error):
                raise
            return await _answer_async(fallback, error, args, kwargs)
        if _is_failure(circuit, result):
            return await _answer_async(fallback, None, args, kwargs)
        return result

    return answered


def may_answer(circuit: Circuit, error: BaseException) -> bool:
    """Return whether a fallback may answer `error`: whether it is a rejection or a failure."""
    if not fallbacks_allowed():
        return False
    if isinstance(error, CircuitOpenError):
        return True
    return classify_error(circuit.settings, error) is Outcome.FAILURE


def _is_failure(circuit: Circuit, result: object) -> bool:
    classify = circuit.settings.classify_result
    if classify is None or not fallbacks_allowed():
        return False
    return classify_result(classify, result) is Outcome.FAILURE


def _answer(
    fallback: Callable[..., Any],
    error: BaseException,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        reply = fallback(*args, **kwargs)
    except Exception as failed:
        raise failed from error
    note_answered(error)
    return reply


async def _answer_async(
    fallback: Callable[..., Any],
    error: BaseException | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        reply = fallback(*args, **kwargs)
        reply = await reply if inspect.isawaitable(reply) else reply
    except Exception as failed:
        raise failed from error
    note_answered(error)
    return reply


def note_answered(error: BaseException | None) -> None:
    """Note on the current operation that a fallback answered `error`, if that is a rejection."""
    operation = current_operation()
    if operation is not None and isinstance(error, CircuitOpenError):
        operation.note_answered(error.name)


def note_unanswered(error: BaseException | None) -> None:
    """Note on the current operation that the fallback failed after all."""
    operation = current_operation()
    if operation is not None and isinstance(error, CircuitOpenError):
        operation.note_rejection(error.name)
