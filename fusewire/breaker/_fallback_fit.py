"""Whether a fallback fits the function that it answers for, and whether it takes the error."""

from __future__ import annotations

import inspect
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, Parameter, Signature
from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire._validation import name_of
from fusewire.breaker._fallback import Answer, without_error
from fusewire.breaker._kinds import kind_of
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_UNFIT: Mapping[int, tuple[int, ...]] = {
    0: (CO_COROUTINE,),
    CO_COROUTINE: (),
    CO_GENERATOR: (CO_COROUTINE, CO_ASYNC_GENERATOR),
    CO_ASYNC_GENERATOR: (CO_COROUTINE,),
}
"""By kind of function, the kinds of fallback whose results its callers could not use."""

_KIND_NAMES = {
    0: "plain function",
    CO_COROUTINE: "coroutine function",
    CO_GENERATOR: "generator function",
    CO_ASYNC_GENERATOR: "async generator function",
}

_ERROR = "error"
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_GIVEN_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Fit(NamedTuple):
    """How a fallback takes the arguments of a function.

    Attributes:
        fits: whether it can be called whenever the function can.
        error: its parameter for the error; None if it takes none.
    """

    fits: bool
    error: str | None


def check_kind(func: Callable[..., Any], fallback: Callable[..., Any]) -> None:
    """Refuse a fallback whose result callers of `func` could not use, such as a coroutine.

    Raises:
        SettingsError: it is of such a kind.
    """
    kind, other = kind_of(func), kind_of(fallback)
    if other in _UNFIT[kind]:
        fit = _KIND_NAMES[0] if kind == 0 else f"{_KIND_NAMES[0]} or {_KIND_NAMES[kind]}"
        raise SettingsError(
            f"fallback of the {_KIND_NAMES[kind]} {name_of(func)} must be a {fit}, got "
            f"{name_of(fallback)}, a {_KIND_NAMES[other]}"
        )


def check_fallback(func: Callable[..., Any], fallback: Callable[..., Any], skip: int = 0) -> Fit:
    """Check that `fallback` can answer for `func`, and return how it takes the arguments.

    Args:
        func: the function.
        fallback: the fallback.
        skip: how many of the first arguments `fallback` is bound to, as a method is.

    Raises:
        SettingsError: it cannot.
    """
    check_kind(func, fallback)
    fit = _fit(func, fallback, skip)
    if not fit.fits:
        raise SettingsError(
            f"fallback must take what {name_of(func)}{_signature(func, skip)} takes, under the "
            f"same names, and may take the error as one parameter more, got "
            f"{name_of(fallback)}{_signature(fallback)}"
        )
    return fit


def checked_answer(func: Callable[..., Any], fallback: Callable[..., Any]) -> Answer:
    """Return the answer of `fallback`, which gets the error if it takes it.

    Raises:
        SettingsError: `fallback` cannot answer for `func`.
    """
    return answer_by(fallback, check_fallback(func, fallback).error)


def answer_of(func: Callable[..., Any], fallback: Callable[..., Any]) -> Answer:
    """Return the answer of `fallback`, which gets the error only if it fits so."""
    fit = _fit(func, fallback)
    return answer_by(fallback, fit.error if fit.fits else None)


def answer_by(fallback: Callable[..., Any], parameter: str | None) -> Answer:
    """Return the answer of `fallback`, which gets the error as its `parameter`, if it has one."""
    if parameter is None:
        return without_error(fallback)
    return lambda error, args, kwargs: fallback(*args, **{**kwargs, parameter: error})


def _fit(func: Callable[..., Any], fallback: Callable[..., Any], skip: int = 0) -> Fit:
    function, other = _signature(func, skip), _signature(fallback)
    if function is None or other is None:  # a function in C that does not say
        return Fit(fits=True, error=None)
    parameter = _error_parameter(function, other)
    given = {} if parameter is None else {parameter: ""}  # no parameter's name
    # A function of any arguments may be called with more than the fallback has room for, and by
    # names that only the fallback has as parameters.
    more = len(other.parameters) + 1
    names = [name for name in _names(other) if name not in _names(function) and name != parameter]
    calls = _calls(function, more, ["any other name", *names])
    fits = all(_takes(other, function, args, kwargs | given) for args, kwargs in calls)
    return Fit(fits, parameter)


def _signature(func: Callable[..., Any], skip: int = 0) -> Signature | None:
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return None
    return signature.replace(parameters=list(signature.parameters.values())[skip:])


def _names(signature: Signature) -> list[str]:
    """Return the parameters that can be given by name."""
    return [name for name, each in signature.parameters.items() if each.kind in _GIVEN_BY_NAME]


def _error_parameter(function: Signature, fallback: Signature) -> str | None:
    """Return the parameter for the error: one that `function` has not and that must be given.

    One that is called ``error`` need not have to be given.
    """
    for each in reversed([*fallback.parameters.values()]):
        if each.name in function.parameters or each.kind not in _GIVEN_BY_NAME:
            continue
        if each.name == _ERROR or each.default is Parameter.empty:
            return each.name
    return None


def _calls(
    function: Signature, more: int, names: list[str]
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield the ways to call `function` that differ most. Each argument is its parameter's name.

    Args:
        function: the function.
        more: how many arguments it is given for ``*args``.
        names: the names that it is given for ``**kwargs``.
    """
    parameters = function.parameters.values()
    needed = [
        each
        for each in parameters
        if each.default is Parameter.empty and each.kind not in _VARIADIC
    ]
    for chosen in (parameters, needed):
        for by_name in (False, True):
            args: list[str] = []
            kwargs: dict[str, str] = {}
            for each in chosen:
                if each.kind is Parameter.VAR_POSITIONAL:
                    args += [] if by_name else [each.name] * more
                elif each.kind is Parameter.VAR_KEYWORD:
                    kwargs |= dict.fromkeys(names, each.name)
                elif each.kind is Parameter.KEYWORD_ONLY or (
                    by_name and each.kind is Parameter.POSITIONAL_OR_KEYWORD
                ):
                    kwargs[each.name] = each.name
                else:
                    args.append(each.name)
            yield args, kwargs


def _takes(
    fallback: Signature, function: Signature, args: list[str], kwargs: dict[str, str]
) -> bool:
    """Return whether `fallback` can be called so, and gets each argument by its own name."""
    try:
        given = fallback.bind(*args, **kwargs).arguments
    except TypeError:
        return False
    in_both = {
        name
        for name, each in function.parameters.items()
        if each.kind not in _VARIADIC and name in fallback.parameters
    }
    return all(
        value == name
        for name, value in given.items()
        if fallback.parameters[name].kind not in _VARIADIC
        and (name in function.parameters or value in in_both)
    )
