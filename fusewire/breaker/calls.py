"""Ways to call through a circuit: decorator, call, await, and with a fallback."""

from __future__ import annotations

import functools
import inspect
import random
import time
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from fusewire._text import check_text
from fusewire.breaker.core import UNTIMED, Circuit
from fusewire.breaker.fallback import with_fallback, with_fallback_async
from fusewire.breaker.functions import awaitable_of
from fusewire.breaker.judging import judge_result
from fusewire.breaker.settings import BreakerSettings
from fusewire.breaker.states import Outcome
from fusewire.breaker.streams import guard_async_generator, guard_generator
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_SETTINGS = (5, 30.0, 3, (Exception,))


class CircuitBreaker(Circuit):
    """A circuit breaker: calls to a dependency go through it, and stop while it is down.

    Use it as a decorator, or through :meth:`call`, :meth:`call_async`,
    :meth:`call_with_fallback`, or take a permit with :meth:`acquire`. One object serves threads and
    asyncio together.

    Args:
        name: the identity of the dependency, the same wherever it is called from.
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds that it stays open before probes are let through.
        half_open_max_calls: probes at a time, and successes needed to close it.
        expected_exceptions: exceptions that count as failures.
        settings: everything at once, instead of the four before.
        fallback: called with the same arguments for a rejected or failed call, by decorated
            functions and by :meth:`call_with_fallback`; plain :meth:`call` does not use it.
        clock: monotonic seconds.
        chance: numbers from 0 and below 1, for the jitter of the open time.

    Raises:
        SettingsError: a setting cannot be right.
    """

    __slots__ = ("fallback",)

    def __init__(
        self,
        name: str,
        failure_threshold: int | None = 5,
        recovery_timeout: float = 30.0,
        half_open_max_calls: int = 3,
        expected_exceptions: tuple[type[BaseException], ...] = (Exception,),
        *,
        settings: BreakerSettings | None = None,
        fallback: Callable[..., Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        check_text("name", name)
        given = (failure_threshold, recovery_timeout, half_open_max_calls, expected_exceptions)
        if settings is None:
            settings = BreakerSettings(
                failure_threshold=failure_threshold,
                recovery_timeout=recovery_timeout,
                half_open_max_calls=half_open_max_calls,
                expected_exceptions=expected_exceptions,
            )
        elif given != _FIRST_SETTINGS:
            raise SettingsError(
                f"settings must come alone: circuit {name!r} got single settings beside them"
            )
        if fallback is not None and not callable(fallback):
            raise SettingsError(f"fallback must be a function, got {fallback!r}")
        super().__init__(name, settings, clock, chance)
        self.fallback = fallback

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"

    @overload
    def __call__(
        self, func: Callable[P, T], /, *, fallback: Callable[..., Any] | None = None
    ) -> Callable[P, T]: ...

    @overload
    def __call__(
        self, func: None = None, /, *, fallback: Callable[..., Any] | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]: ...

    def __call__(
        self,
        func: Any = None,
        /,
        *,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """Guard `func`: use the breaker as a decorator, ``@breaker`` or ``@breaker(fallback=…)``.

        Functions, coroutine functions, generator functions and async generator functions keep their
        kind. Without `fallback`, the breaker's own is used.
        """
        if func is None:
            return functools.partial(self.__call__, fallback=fallback)
        chosen = fallback or self.fallback
        for role, given in (("what a breaker guards", func), ("fallback", chosen)):
            if given is not None and not callable(given):
                raise SettingsError(f"{role} must be a function, got {given!r}")
        if chosen is not None and not _kind(func) and _kind(chosen) == CO_COROUTINE:
            raise SettingsError(
                f"fallback of the plain function {func!r} must be a plain function, got {chosen!r}"
            )
        return functools.wraps(func)(self._guard(func, chosen))

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `func` through the circuit.

        A coroutine is guarded while it is awaited, and a generator while its items are asked for.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
        """
        result: T = self._guard(func, None)(*args, **kwargs)
        return result

    async def call_async(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await `func` through the circuit.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
            SettingsError: what `func` returned cannot be awaited; it is for :meth:`call`.
        """
        if not inspect.iscoroutinefunction(func):
            func = functools.partial(awaitable_of, func)
        result: T = await self._guard_coroutine(func, None)(*args, **kwargs)
        return result

    def call_with_fallback(
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        fallback: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> T:
        """Call `func`; if it is rejected or fails, call `fallback` with the same arguments instead.

        Without `fallback`, the breaker's own is used; without either, the error is raised. If the
        fallback fails too, the first error is the cause of its error.
        """
        result: T = self._guard(func, fallback or self.fallback)(*args, **kwargs)
        return result

    def _guard(
        self, func: Callable[..., Any], fallback: Callable[..., Any] | None
    ) -> Callable[..., Any]:
        kind = _kind(func)
        if not kind:
            return self._guard_function(func, fallback)
        if kind == CO_COROUTINE:
            return self._guard_coroutine(func, fallback)
        guard = guard_generator if kind == CO_GENERATOR else guard_async_generator
        return guard(self, func, fallback)

    def _guard_function(
        self, func: Callable[..., Any], fallback: Callable[..., Any] | None
    ) -> Callable[..., Any]:
        clock = self._clock
        notes = self._healthy

        def guarded(*args: Any, **kwargs: Any) -> Any:
            generation = self._free
            if not generation or self._settings.classify_result is not None:
                return self._run_with_permit(func, args, kwargs)
            started = clock() if self._timed else UNTIMED
            try:
                result = func(*args, **kwargs)
            except BaseException as error:
                self._end_call(generation, started, self.judge(error))
                raise
            if type(result) is CoroutineType:
                return self._drive(result)
            now = clock() if self._timed else 0.0
            if (
                len(notes) < self._room
                and now < self._room_until
                and now - started <= self._slow_after
                and generation == self._free
            ):
                notes.append(generation)
            else:
                self._end_call(generation, started, Outcome.SUCCESS)
            return result

        return guarded if fallback is None else with_fallback(self, guarded, fallback)

    def _guard_coroutine(
        self, func: Callable[..., Any], fallback: Callable[..., Any] | None
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        clock = self._clock
        notes = self._healthy

        # The same as for a function, with an await: what they might share would cost each of them
        # a call of its own.
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            generation = self._free
            if not generation or self._settings.classify_result is not None:
                return await self._run_async_with_permit(func, args, kwargs)
            started = clock() if self._timed else UNTIMED
            try:
                result = await func(*args, **kwargs)
            except BaseException as error:
                self._end_call(generation, started, self.judge(error))
                raise
            now = clock() if self._timed else 0.0
            if (
                len(notes) < self._room
                and now < self._room_until
                and now - started <= self._slow_after
                and generation == self._free
            ):
                notes.append(generation)
            else:
                self._end_call(generation, started, Outcome.SUCCESS)
            return result

        return guarded if fallback is None else with_fallback_async(self, guarded, fallback)

    def _end_call(self, generation: int, started: float, outcome: Outcome) -> None:
        """Record a call that had no permit."""
        if outcome is Outcome.FAILURE:
            self._tell_operation()
        self._change(self._clock(), self._settle_call, generation, started, outcome)

    def _run_with_permit(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self.acquire() as permit:
            result = func(*args, **kwargs)
            if type(result) is CoroutineType:
                # Guarded while it is awaited, which may be never: then the call was not made.
                self._withdraw(permit)
                return self._drive(result)
            permit.settle(self._judge_result(result))
            return result

    async def _run_async_with_permit(
        self, func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self.acquire() as permit:
            result = await func(*args, **kwargs)
            permit.settle(self._judge_result(result))
            return result

    async def _drive(self, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        """Await a coroutine that a plain function gave; it has not begun to run."""
        try:
            return await self._guard_coroutine(lambda: coroutine, None)()
        finally:
            # Only a rejected one is still to be closed; for others this does nothing.
            coroutine.close()

    def _judge_result(self, result: object) -> Outcome:
        classify = self._settings.classify_result
        return Outcome.SUCCESS if classify is None else judge_result(classify, result)


_KINDS = {
    CO_COROUTINE: inspect.iscoroutinefunction,
    CO_GENERATOR: inspect.isgeneratorfunction,
    CO_ASYNC_GENERATOR: inspect.isasyncgenfunction,
}
_ANY_KIND = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR


def _kind(func: Callable[..., Any]) -> int:
    """Tell whether `func` makes a coroutine or a generator of a kind; 0 for what does neither."""
    # `inspect` takes its time, and for most functions their flags tell.
    code = getattr(func, "__code__", None)
    if code is not None:
        flags: int = code.co_flags
        return flags & _ANY_KIND
    call: Any = getattr(func, "__call__", None)  # noqa: B004 - asks how an object's call behaves, not whether
    return next((kind for kind, fits in _KINDS.items() if fits(func) or fits(call)), 0)
