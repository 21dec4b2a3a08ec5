"""Checking a consumer's settings: what cannot be right is refused when it is given."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

from fusewire._text import check_text
from fusewire.breaker import BreakerRegistry, CircuitBreaker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_METHOD = re.compile(r"/([A-Za-z_][\w.]*)/([A-Za-z_]\w*)")


def check_whole(name: str, value: object, *, most: float = math.inf) -> None:
    """Refuse what is no whole number from 1 to `most`.

    Raises:
        SettingsError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        limit = "1 or more" if most == math.inf else f"from 1 to {most:.0f}, which is AMQP's limit"
        raise SettingsError(f"{name}={value!r}: give a whole number, {limit}")


def check_number(name: str, value: object, unit: str = "seconds", *, zero: bool = False) -> None:
    """Refuse what is no finite number above 0, or from 0 on with `zero`.

    Raises:
        SettingsError: it is none.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 < value < math.inf or (zero and value == 0)):  # type: ignore[operator] # a number, then
        least = "0 or more" if zero else "more than 0"
        raise SettingsError(f"{name}={value!r}: give {unit} as a number, {least}")


def check_breaker_names(name: str, given: Iterable[object]) -> None:
    """Refuse what is no name of a breaker, and a gRPC method that its service does not have.

    A service is known once its generated code was imported; another one may have any method.

    Raises:
        SettingsError: a name cannot be meant.
    """
    for each in given:
        if isinstance(each, CircuitBreaker):
            raise SettingsError(f"{name}: {each!r} is a breaker: give its name, {each.name!r}")
        if not isinstance(each, str) or not each:
            raise SettingsError(f"{name}: {each!r} is not the name of a breaker")
        check_text(name, each)
        if (method := _METHOD.fullmatch(each)) is not None:
            _check_method(name, each, *method.groups())


def check_registry(registry: object) -> None:
    """Refuse what is no registry.

    Raises:
        SettingsError: it is none.
    """
    if not isinstance(registry, BreakerRegistry):
        raise SettingsError(f"registry={registry!r}: give a BreakerRegistry, or None for default")


def _check_method(setting: str, name: str, service: str, method: str) -> None:
    try:
        known = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return
    methods = list(known.methods_by_name)
    if method in methods:
        return
    near = difflib.get_close_matches(method, methods, n=1, cutoff=0)
    hint = f": is it {f'/{service}/{near[0]}'!r}?" if near else ""
    raise SettingsError(f"{setting}: {name!r} is no method of {service}{hint}")
