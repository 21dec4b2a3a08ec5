"""The decorator ``@circuit_breaker("name")``: it looks its breaker up at each call."""

from __future__ import annotations

import functools
from inspect import CO_COROUTINE, CO_GENERATOR
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, TypeVarTuple, overload

from fusewire._validation import check, check_text, instance_of, invalid
from fusewire.breaker._fallback_fit import answer_of, checked_answer
from fusewire.breaker._kinds import kind_of
from fusewire.breaker._named_fallbacks import NamedFallback
from fusewire.breaker._registry import BreakerRegistry, default_registry
from fusewire.breaker._settings import BreakerSettings, check_settings
from fusewire.breaker._streams import guard_async_generator, guard_generator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator

    from fusewire.breaker._breaker import CircuitBreaker
    from fusewire.breaker._fallback import Answer

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Item = TypeVar("Item")
Ts = TypeVarTuple("Ts")
Made = TypeVar("Made")
Func = TypeVar("Func", bound="Callable[..., Any] | classmethod[Any, Any, Any]")


class _Guard(Protocol):
    """Guards a function. Without a fallback, or with one by name, its type stays."""

    def __call__(self, func: Func, /) -> Func: ...


class _GuardWithFallback(Protocol[P, T_co]):  # type: ignore[misc] # a list is an iterable
    """Guards functions that take what the fallback takes, and return what it returns."""

    @overload
    def __call__(self, func: Callable[P, T_co], /) -> Callable[P, T_co]: ...

    @overload
    def __call__(
        self, func: Callable[P, Coroutine[Any, Any, T_co]], /
    ) -> Callable[P, Coroutine[Any, Any, T_co]]: ...

    @overload
    def __call__(
        self: _GuardWithFallback[P, Iterable[Item]], func: Callable[P, Iterator[Item]], /
    ) -> Callable[P, Iterator[Item]]: ...

    @overload
    def __call__(
        self: _GuardWithFallback[P, Iterable[Item]], func: Callable[P, AsyncIterator[Item]], /
    ) -> Callable[P, AsyncIterator[Item]]: ...


class _GuardGivingError(Protocol[T_co]):  # type: ignore[misc] # as above
    """Guards functions that return what a fallback returns that takes the error too.

    That it takes the function's arguments before the error is checked when the function is
    decorated: types cannot say it without losing the parameters' names.
    """

    @overload
    def __call__(self, func: Callable[P, T_co], /) -> Callable[P, T_co]: ...

    @overload
    def __call__(
        self, func: Callable[P, Coroutine[Any, Any, T_co]], /
    ) -> Callable[P, Coroutine[Any, Any, T_co]]: ...

    @overload
    def __call__(
        self: _GuardGivingError[Iterable[Item]], func: Callable[P, Iterator[Item]], /
    ) -> Callable[P, Iterator[Item]]: ...

    @overload
    def __call__(
        self: _GuardGivingError[Iterable[Item]], func: Callable[P, AsyncIterator[Item]], /
    ) -> Callable[P, AsyncIterator[Item]]: ...


@overload
def circuit_breaker(
    name: str,
    *,
    fallback: str | None = None,
    settings: BreakerSettings | None = None,
    registry: BreakerRegistry | None = None,
) -> _Guard: ...


@overload
def circuit_breaker(
    name: str,
    *,
    fallback: Callable[[*Ts, Exception], T],
    settings: BreakerSettings | None = None,
    registry: BreakerRegistry | None = None,
) -> _GuardGivingError[T]: ...


@overload
def circuit_breaker(
    name: str,
    *,
    fallback: Callable[P, T],
    settings: BreakerSettings | None = None,
    registry: BreakerRegistry | None = None,
) -> _GuardWithFallback[P, T]: ...


def circuit_breaker(
    name: str,
    *,
    fallback: Callable[..., Any] | str | None = None,
    settings: BreakerSettings | None = None,
    registry: BreakerRegistry | None = None,
) -> Any:
    """Guard a function by the breaker of a registry: ``@circuit_breaker("user-service")``.

    Functions, coroutine functions, generator functions and async generator functions keep their
    kind. So do methods, class methods and static methods, whichever decorator stands above the
    other. The breaker is looked up at each call, of a stream when its first item is asked for: it
    is the one that channels and other functions have under this name, also after the registry was
    configured again or has dropped a breaker. Nothing is made before the first call.

    A fallback answers with the same arguments if a call is rejected or fails. If it has one
    parameter more, called ``error`` or without a default, it is given the error too: that of the
    call, :class:`~fusewire.errors.CircuitOpenError` for a rejection, or
    :class:`~fusewire.errors.FailedResultError` for a result that `classify_result` takes for a
    failure. Without a fallback, that of the breaker is used, if it has one.

    Args:
        name: the breaker's name.
        fallback: a function, or the name of one: of a method of the same class for a method, of a
            function of the same module for a function. A function is checked when the decorator is
            applied. A name is checked then if it stands above in the module, and otherwise at the
            first call, even if that call succeeds.
        settings: what :meth:`BreakerRegistry.get` is given. Without them, the registry's apply.
        registry: where the breaker is; by default :func:`default_registry`.

    Raises:
        SettingsError: an argument is wrong, or the fallback does not fit the function. If the
            fallback is given by name, a call may raise it too.
    """
    if callable(name):
        raise invalid("name", "a non-empty string", name, 'write @circuit_breaker("its-name")')
    check_text("name", name)
    if settings is not None:
        check_settings(settings)
    check("registry", registry, instance_of(BreakerRegistry).or_none)
    if fallback is not None and not callable(fallback) and not _is_name(fallback):
        raise invalid("fallback", "a function or the name of one", fallback)
    source = default_registry() if registry is None else registry

    def guard(func: Any) -> Any:
        if isinstance(func, staticmethod | classmethod):
            return type(func)(guard(func.__func__))
        if not callable(func) or isinstance(func, type):
            raise invalid("what circuit_breaker guards", "a function", func)
        answer = _answer(func, fallback)

        def prepare(args: tuple[Any, ...]) -> tuple[CircuitBreaker, Answer | None]:
            if isinstance(answer, NamedFallback):
                answer.check(args)
            breaker = source.get(name, settings)
            if answer is None and breaker.fallback is not None:
                return breaker, answer_of(func, breaker.fallback)
            return breaker, answer

        return functools.wraps(func)(_guarded(func, source, prepare))

    return guard


def _is_name(fallback: object) -> bool:
    return isinstance(fallback, str) and fallback.isidentifier()


def _answer(func: Callable[..., Any], fallback: Callable[..., Any] | str | None) -> Answer | None:
    if fallback is None:
        return None
    return (
        NamedFallback(func, fallback)
        if isinstance(fallback, str)
        else checked_answer(func, fallback)
    )


def _guarded(
    func: Callable[..., Any],
    registry: BreakerRegistry,
    prepare: Callable[[tuple[Any, ...]], tuple[CircuitBreaker, Answer | None]],
) -> Callable[..., Any]:
    """Return `func`, guarded by the breaker that `prepare` returns when it is called."""
    kind = kind_of(func)
    if kind and kind != CO_COROUTINE:
        guard = guard_generator if kind == CO_GENERATOR else guard_async_generator
        return guard(_kept(registry, prepare), func)

    def guard_now(args: tuple[Any, ...]) -> Callable[..., Any]:
        breaker, answer = prepare(args)
        return breaker._guard(func, answer)  # noqa: SLF001 - private to users, and not to the room

    current = _kept(registry, guard_now)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        return current(args)(*args, **kwargs)

    async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
        return await current(args)(*args, **kwargs)

    return guarded_coroutine if kind else guarded


def _kept(
    registry: BreakerRegistry, make: Callable[[tuple[Any, ...]], Made]
) -> Callable[[tuple[Any, ...]], Made]:
    """Return a function that returns what `make` returned, until `registry` drops a breaker."""
    kept: tuple[int, Made] | None = None

    def current(args: tuple[Any, ...]) -> Made:
        nonlocal kept
        known = kept
        generation = registry.generation  # read first: the breaker may be dropped at once
        if known is not None and known[0] == generation:
            return known[1]
        made = make(args)
        kept = generation, made  # in one step, because threads may come here together
        return made

    return current
