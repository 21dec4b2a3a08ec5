"""Fallbacks: called with the same arguments if a call is rejected or fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from fusewire.breaker._classification import classify_error, classify_result
from fusewire.breaker._results import comes_later
from fusewire.breaker._states import Outcome
from fusewire.errors import CircuitOpenError, FailedResultError
from fusewire.operation import current_operation, fallbacks_allowed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fusewire.breaker._circuit import Circuit


Answer: TypeAlias = Callable[[BaseException, tuple[Any, ...], dict[str, Any]], Any]
"""Answers a call: it is given the error, and the call's arguments."""


def without_error(fallback: Callable[..., Any]) -> Answer:
    """Return the answer of a fallback that takes the arguments only."""
    return lambda _error, args, kwargs: fallback(*args, **kwargs)


def with_fallback(
    circuit: Circuit, guarded: Callable[..., Any], answer: Answer
) -> Callable[..., Any]:
    """Let a fallback answer if `guarded` is rejected or fails.

    If the result of `guarded` is pending, `guarded` has added the fallback to it itself.
    """

    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            result = guarded(*args, **kwargs)
        except BaseException as error:
            if not may_answer(circuit, error):
                raise
            return _answer(circuit, answer, error, args, kwargs)
        if not comes_later(result) and _is_failure(circuit, result):
            failed = FailedResultError(circuit.name, result)
            return _answer(circuit, answer, failed, args, kwargs)
        return result

    return answered


def with_fallback_async(
    circuit: Circuit, guarded: Callable[..., Any], answer: Answer
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Let a fallback, plain or async, answer if `guarded` is rejected or fails."""

    async def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await guarded(*args, **kwargs)
        except BaseException as error:
            if not may_answer(circuit, error):
                raise
            return await _answer_async(circuit, answer, error, args, kwargs)
        if _is_failure(circuit, result):
            failed = FailedResultError(circuit.name, result)
            return await _answer_async(circuit, answer, failed, args, kwargs)
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
    circuit: Circuit,
    answer: Answer,
    error: BaseException,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        reply = answer(error, args, kwargs)
    except Exception as failed:
        circuit.note_fallback(answered=False)
        raise failed from error
    circuit.note_fallback(answered=True)
    note_answered(error)
    return reply


async def _answer_async(
    circuit: Circuit,
    answer: Answer,
    error: BaseException,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        reply = answer(error, args, kwargs)
        reply = await reply if inspect.isawaitable(reply) else reply
    except Exception as failed:
        circuit.note_fallback(answered=False)
        raise failed from error
    circuit.note_fallback(answered=True)
    note_answered(error)
    return reply


def note_answered(error: BaseException) -> None:
    """Note on the current operation that a fallback answered `error`, if that is a rejection."""
    operation = current_operation()
    if operation is not None and isinstance(error, CircuitOpenError):
        operation.note_answered(error.name)


def note_unanswered(error: BaseException) -> None:
    """Note on the current operation that the fallback failed after all."""
    operation = current_operation()
    if operation is not None and isinstance(error, CircuitOpenError):
        operation.note_rejection(error.name)
