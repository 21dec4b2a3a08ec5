"""The circuit breaker: a decorator, and other ways to call through a circuit."""

from __future__ import annotations

import functools
import inspect
import random
import time
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from fusewire._validation import check_text, invalid
from fusewire.breaker._circuit import UNTIMED
from fusewire.breaker._fallback import without_error
from fusewire.breaker._fallback_fit import answer_of, check_kind
from fusewire.breaker._guards import GuardingCircuit
from fusewire.breaker._settings import BreakerSettings
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.breaker._states import Outcome

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_SETTINGS = (5, 30.0, 3, (Exception,))


class CircuitBreaker(GuardingCircuit):
    """A circuit breaker: calls to a dependency go through it, and stop while it is down.

    Use it as a decorator, or with :meth:`call`, :meth:`call_async` or :meth:`call_with_fallback`,
    or take a permit with :meth:`acquire`. One object serves threads and asyncio.

    Args:
        name: the identity of the dependency, the same wherever it is called from.
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds that it stays open before probes are let through.
        half_open_max_calls: probes at a time, and successful probes needed to close it.
        expected_exceptions: exceptions that count as failures.
        settings: all settings in one object, instead of the four above.
        fallback: called with the same arguments if a call is rejected or fails. Decorated functions
            and :meth:`call_with_fallback` use it, :meth:`call` does not.
        clock: returns monotonic seconds.
        rng: returns numbers from 0 and below 1, for the jitter of the open time.
        chance: the former name of `rng`; deprecated.

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
        rng: Callable[[], float] = random.random,
        chance: Callable[[], float] | None = None,
    ) -> None:
        check_text("name", name)
        if chance is not None:
            rng = _former_name_of_rng(name, rng, chance)
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
                f"settings of circuit {name!r} must be given without single settings, got both"
            )
        if fallback is not None and not callable(fallback):
            raise invalid("fallback", "a function", fallback)
        super().__init__(name, settings, clock, rng)
        self.fallback = fallback

    def judge(self, error: BaseException, started: float = UNTIMED) -> Outcome:
        """Do what :meth:`classify` does, under its former name; deprecated."""
        warnings.warn(
            "CircuitBreaker.judge() is now CircuitBreaker.classify()",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.classify(error, started)

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

        Coroutine functions, generator functions and async generator functions keep their kind.
        Without `fallback`, the breaker's own is used.
        """
        if func is None:
            return functools.partial(self.__call__, fallback=fallback)
        if isinstance(func, staticmethod | classmethod):
            return type(func)(self(func.__func__, fallback=fallback))
        chosen = fallback or self.fallback
        for role, given in (("what a breaker guards", func), ("fallback", chosen)):
            if given is not None and not callable(given):
                raise invalid(role, "a function", given)
        if chosen is None:
            return functools.wraps(func)(self._guard(func))
        check_kind(func, chosen)
        return functools.wraps(func)(self._guard(func, answer_of(func, chosen)))

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `func` through the circuit.

        A coroutine is guarded while it is awaited, a generator while it is iterated over.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
        """
        result: T = self._guard(func)(*args, **kwargs)
        return result

    async def call_async(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await `func` through the circuit.

        Raises:
            CircuitOpenError: the circuit did not admit the call; `func` was not called.
            SettingsError: `func` returned something that cannot be awaited; use :meth:`call`.
        """
        call = functools.partial(_awaitable_of, func)
        result: T = await self._guard_coroutine(call, None)(*args, **kwargs)
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
        fallback fails too, its error has the first error as its cause.
        """
        chosen = fallback or self.fallback
        answer = None if chosen is None else without_error(chosen)
        result: T = self._guard(func, answer)(*args, **kwargs)
        return result


def _awaitable_of(func: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> Awaitable[T]:
    """Call `func` and return what it returns, which is to be awaited.

    Raises:
        SettingsError: it cannot be.
    """
    result: object = func(*args, **kwargs)
    if not inspect.isawaitable(result):
        raise SettingsError(
            f"call_async awaits what the function returns, and {func!r} returned {result!r}: call "
            "plain functions by call()"
        )
    return result


def _former_name_of_rng(
    name: str, rng: Callable[[], float], chance: Callable[[], float]
) -> Callable[[], float]:
    if rng is not random.random:
        raise SettingsError(
            f"rng and chance of circuit {name!r} are the same setting: leave out chance"
        )
    warnings.warn(
        "CircuitBreaker(chance=...) is now CircuitBreaker(rng=...)",
        DeprecationWarning,
        stacklevel=3,
    )
    return chance
