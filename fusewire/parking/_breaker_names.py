"""Names of breakers, which users give to a consumer; and breakers, given where none belongs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

from fusewire._validation import check_callable, check_plain_function, check_text, invalid, nearest
from fusewire.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.errors import SettingsError

_METHOD = re.compile(r"/([A-Za-z_][\w.]*)/([A-Za-z_]\w*)")


def check_breaker_names(name: str, given: Iterable[object]) -> None:
    """Refuse what is no name of a breaker, and a gRPC method that its service does not have.

    A service is known once its generated code was imported; another one may have any method.

    Raises:
        SettingsError: a name cannot be meant.
    """
    for each in given:
        if isinstance(each, CircuitBreaker):
            raise refused_breaker(name, each)
        check_text(name, each)
        if (method := _METHOD.fullmatch(str(each))) is not None:
            _check_method(name, *method.groups())


def refused_breaker(name: str, breaker: CircuitBreaker) -> SettingsError:
    """Make the error for a breaker that was given where its name belongs."""
    return invalid(name, "a breaker's name", breaker, f"write {breaker.name!r}")


def check_handler(name: str, function: object, argument: str) -> None:
    """Refuse what cannot be called with `argument` alone; a coroutine function is fine.

    Raises:
        SettingsError: calling it would fail, or would not do its work.
    """
    _refuse_breaker(name, function, argument)
    check_callable(name, function, argument)


def check_function(name: str, function: object, argument: str) -> None:
    """Refuse what is no plain function of `argument`.

    Raises:
        SettingsError: calling it would fail, or would not do its work.
    """
    _refuse_breaker(name, function, argument)
    check_plain_function(name, function, argument)


def _refuse_breaker(name: str, function: object, argument: str) -> None:
    # It can be called, and makes a guarded function of what it is given.
    if isinstance(function, CircuitBreaker):
        raise invalid(name, f"a function that takes {argument}, and not a breaker", function)


def _check_method(setting: str, service: str, method: str) -> None:
    try:
        known = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return
    methods = list(known.methods_by_name)
    if method not in methods:
        near = nearest(method, methods, cutoff=0)
        hint = f"did you mean {f'/{service}/{near}'!r}?" if near else ""
        raise invalid(setting, f"a method of {service}", f"/{service}/{method}", hint)
