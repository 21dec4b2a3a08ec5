"""Ways to call through a circuit: decorator, call, await, and with a fallback."""

from __future__ import annotations

import functools
import inspect
import time
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from fusewire.breaker.core import Circuit
from fusewire.breaker.settings import BreakerSettings
from fusewire.breaker.states import Outcome
from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.operation import fallbacks_allowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_ARTICLE_DEFAULTS = (5, 30.0, 3, (Exception,))


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
    ) -> None:
        if not isinstance(cast("object", name), str) or not name:
            raise SettingsError(f"name must be a text that is not empty, got {name!r}")
        given = (failure_threshold, recovery_timeout, half_open_max_calls, expected_exceptions)
        if settings is None:
            settings = BreakerSettings(
                failure_threshold=failure_threshold,
                recovery_timeout=recovery_timeout,
                half_open_max_calls=half_open_max_calls,
                expected_exceptions=expected_exceptions,
            )
        elif given != _ARTICLE_DEFAULTS:
            raise SettingsError(
                f"settings must come alone: circuit {name!r} got single settings beside them"
            )
        super().__init__(name, settings, clock)
        self.fallback = fallback

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"

    def __call__(self, func: Callable[P, T]) -> Callable[P, T]:
        """Guard `func`, a function or a coroutine function: use the breaker as a decorator."""
        if _is_coroutine_function(func):

            @functools.wraps(func)
            async def guarded_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await self._run_async(func, args, kwargs, self.fallback)

            return cast("Callable[P, T]", guarded_coroutine)

        @functools.wraps(func)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return cast("T", self._run(func, args, kwargs, self.fallback))

        return guarded

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `func` through the circuit. A coroutine is guarded while it is awaited.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
        """
        if _is_coroutine_function(func):
            return cast("T", self._run_async(func, args, kwargs, None))
        return cast("T", self._run(func, args, kwargs, None))

    async def call_async(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await `func` through the circuit.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
        """
        return cast("T", await self._run_async(func, args, kwargs, None))

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
        chosen = fallback or self.fallback
        if _is_coroutine_function(func):
            return cast("T", self._run_async(func, args, kwargs, chosen))
        return cast("T", self._run(func, args, kwargs, chosen))

    def _run(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fallback: Callable[..., Any] | None,
    ) -> Any:
        try:
            permit = self.acquire()
            with permit:
                result = func(*args, **kwargs)
                if not isinstance(result, CoroutineType):
                    return result
                permit.release()
        except BaseException as error:
            if fallback is None or not self._replaceable(error):
                raise
            try:
                return fallback(*args, **kwargs)
            except Exception as failed:
                raise failed from error
        return self._drive(result)

    async def _drive(self, coroutine: Awaitable[Any]) -> Any:
        async with self.acquire():
            return await coroutine

    async def _run_async(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fallback: Callable[..., Any] | None,
    ) -> Any:
        try:
            async with self.acquire():
                return await func(*args, **kwargs)
        except BaseException as error:
            if fallback is None or not self._replaceable(error):
                raise
            try:
                reply = fallback(*args, **kwargs)
                return await reply if inspect.isawaitable(reply) else reply
            except Exception as failed:
                raise failed from error

    def _replaceable(self, error: BaseException) -> bool:
        """Tell whether a fallback may answer instead of `error`."""
        if not fallbacks_allowed():
            return False
        return isinstance(error, CircuitOpenError) or self.judge(error) is Outcome.FAILURE


def _is_coroutine_function(func: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(func, "__call__", None)  # noqa: B004 - asks how an object's call behaves, not whether
    )
