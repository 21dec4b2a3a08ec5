"""Pending results: their calls are settled when the results are there."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from fusewire.breaker._circuit import UNTIMED
from fusewire.breaker._loans import LENT
from fusewire.breaker._permit import Permit
from fusewire.breaker._states import Outcome
from fusewire.breaker._streams import iterate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from types import TracebackType

    from fusewire.breaker._guards import GuardingCircuit
    from fusewire.breaker._loans import Loan

logger = logging.getLogger("fusewire.breaker")

_watching: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly


def settle_when_done(breaker: GuardingCircuit, loan: Loan, started: float, pending: Any) -> None:
    """Settle a call when `pending` is done. Until then it lends to the tasks that it started."""
    if hasattr(type(pending), "__next__") or hasattr(type(pending), "__aiter__"):
        started = UNTIMED  # it may be a stream, whose reader sets the pace
    # Callbacks run in any thread, and failures are noted on the operation of this context.
    context = copy_context()
    settle = functools.partial(_settle_done, breaker, loan, started)
    if asyncio.isfuture(pending) and pending.done():
        settle(pending)  # its loop may be closed, and then it calls no callbacks
    else:
        pending.add_done_callback(functools.partial(context.run, settle))


def _settle_done(breaker: GuardingCircuit, loan: Loan, started: float, done: Any) -> None:
    """Settle by what is done. This is a callback, which must not raise."""
    if len(loan) == LENT:
        return  # older grpcio (1.71, for example) calls back at each status that it sets
    lent = loan.pop()
    if isinstance(lent, Permit):
        permit = lent
        permit.started = started
    else:
        permit = Permit(breaker, lent, started)
    try:
        if not hasattr(done, "exception"):
            # Awaiting it shows who cancelled it. cancelled() is also true if the server did.
            task = asyncio.get_running_loop().create_task(
                _settle_aio_call(breaker, permit, done, started)
            )
            _watching.add(task)
            task.add_done_callback(_watching.discard)
        elif done.cancelled():
            cancelled = asyncio.CancelledError()
            permit.conclude(breaker.classify(cancelled, started), cancelled)
        else:
            # exception() would keep asyncio from logging that nobody has retrieved it.
            error = done._exception if asyncio.isfuture(done) else done.exception()  # noqa: SLF001 - see above
            permit.conclude(
                breaker.classify_result(done.result())
                if error is None
                else breaker.classify(error),
                error,
            )
    except Exception:
        logger.exception("the end of a call through circuit %r is not counted", breaker.name)
        permit.release()


async def _settle_aio_call(
    breaker: GuardingCircuit, permit: Permit, done: Any, started: float
) -> None:
    """Settle by a grpc.aio call that is over: only awaiting it shows how it ended."""
    outcome, ended_with = Outcome.SUCCESS, None
    try:
        if inspect.isawaitable(done):
            outcome = breaker.classify_result(await done)
        else:  # a stream raises its status here, without reading a message
            await done.wait_for_connection()
    except BaseException as error:
        outcome, ended_with = breaker.classify(error, started), error
        if not isinstance(error, Exception):
            raise
    finally:
        permit.conclude(outcome, ended_with)


def guard_awaitable(
    guard: Callable[..., Callable[..., Any]],
    inner: Any,
    wait: Callable[[], Coroutine[Any, Any, Any]],
) -> GuardedAwaitable:
    """Guard an object while it is awaited, entered or iterated over, whichever it supports.

    Args:
        guard: guards a function.
        inner: the object.
        wait: awaits the object under guard.
    """
    kind = type(inner)
    guarded = _AWAITABLES[hasattr(kind, "__aenter__"), hasattr(kind, "__aiter__")]
    return guarded(guard, inner, wait)


class GuardedAwaitable:
    """An object that is guarded while it is awaited. All else goes to the inner object."""

    def __init__(
        self,
        guard: Callable[..., Callable[..., Any]],
        inner: Any,
        wait: Callable[[], Coroutine[Any, Any, Any]],
    ) -> None:
        self._guard = guard
        self._inner = inner
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # before __init__
            raise AttributeError(name)
        return getattr(self._inner, name)


class _Entered(GuardedAwaitable):
    """One that may be entered instead of awaited, such as a request of aiohttp."""

    async def __aenter__(self) -> Any:
        return await self._guard(self._inner.__aenter__)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        return await self._inner.__aexit__(kind, error, trace)


class _Iterated(GuardedAwaitable):
    """One that may be iterated over instead of awaited, such as a cursor of asyncpg."""

    def __aiter__(self) -> Any:
        return self._guard(iterate)(self._inner)


class _EnteredOrIterated(_Entered, _Iterated):
    """One that may be either."""


_AWAITABLES: dict[tuple[bool, bool], type[GuardedAwaitable]] = {
    (False, False): GuardedAwaitable,
    (True, False): _Entered,
    (False, True): _Iterated,
    (True, True): _EnteredOrIterated,
}
