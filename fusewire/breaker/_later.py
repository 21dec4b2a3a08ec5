"""What becomes of results that are not there yet: their calls are settled when they are."""

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
    """Settle a call when `pending` is done; until then it lends to the tasks that it has begun."""
    if hasattr(type(pending), "__next__") or hasattr(type(pending), "__aiter__"):
        started = UNTIMED  # it may be a stream, whose reader sets the pace
    # Callbacks run in any thread, and the operation of this context is to hear of a failure.
    context = copy_context()
    settle = functools.partial(_settle_done, breaker, loan, started)
    if asyncio.isfuture(pending) and pending.done():
        settle(pending)  # its loop may be closed, and then it takes no callbacks
    else:
        pending.add_done_callback(functools.partial(context.run, settle))


def _settle_done(breaker: GuardingCircuit, loan: Loan, started: float, done: Any) -> None:
    """Settle by what is done: a callback, which must not raise."""
    if len(loan) == LENT:
        return  # older grpcio (1.71, say) calls back at each status that it sets
    lent = loan.pop()
    permit = lent if isinstance(lent, Permit) else Permit(breaker, lent, started, False)  # noqa: FBT003 - see Permit
    permit.started = started
    try:
        if not hasattr(done, "exception"):
            # Awaited, it says more than cancelled(), which is also true if its server cancelled it.
            task = asyncio.get_running_loop().create_task(
                _settle_aio_call(breaker, permit, done, started)
            )
            _watching.add(task)
            task.add_done_callback(_watching.discard)
        elif done.cancelled():
            permit.conclude(breaker.classify(asyncio.CancelledError(), started))
        else:
            # Asked for its exception, a future of asyncio would no longer log that nobody has.
            error = done._exception if asyncio.isfuture(done) else done.exception()  # noqa: SLF001 - see above
            permit.conclude(
                breaker.classify_result(done.result()) if error is None else breaker.classify(error)
            )
    except Exception:
        logger.exception("the end of a call through circuit %r is not counted", breaker.name)
        permit.release()


async def _settle_aio_call(
    breaker: GuardingCircuit, permit: Permit, done: Any, started: float
) -> None:
    """Settle by a call of grpc.aio that is over: it tells how only when it is awaited."""
    outcome = Outcome.SUCCESS
    try:
        if inspect.isawaitable(done):
            outcome = breaker.classify_result(await done)
        else:  # a stream raises its status here, and no message of it is read
            await done.wait_for_connection()
    except BaseException as error:
        outcome = breaker.classify(error, started)
        if not isinstance(error, Exception):
            raise
    finally:
        permit.conclude(outcome)


def guard_awaitable(
    guard: Callable[..., Callable[..., Any]],
    inner: Any,
    wait: Callable[[], Coroutine[Any, Any, Any]],
) -> GuardedAwaitable:
    """Guard an object while it is awaited, or entered, or iterated over, as far as it can be.

    Args:
        guard: puts functions under guard.
        inner: the object.
        wait: awaits it under guard.
    """
    kind = type(inner)
    guarded = _AWAITABLES[hasattr(kind, "__aenter__"), hasattr(kind, "__aiter__")]
    return guarded(guard, inner, wait)


class GuardedAwaitable:
    """An object that is guarded while it is awaited, and is the inner one in all else."""

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
    """One that may be entered instead of awaited, as a request of aiohttp's."""

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
    """One that may be iterated over instead of awaited, as a cursor of asyncpg's."""

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
