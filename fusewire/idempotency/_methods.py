"""Which methods are declared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fusewire._validation import Rule, check, invalid
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_METHOD = re.compile(r"/[^/*\s]+/(?:\*|[^/*\s]+)")
_IS_METHOD = Rule(
    "'/pkg.Service/Method' or '/pkg.Service/*'",
    lambda value: isinstance(value, str) and _METHOD.fullmatch(value) is not None,
)


class Methods:
    """The methods of an interceptor: paths, or ``/pkg.Service/*`` for all of a service.

    Attributes:
        exact: those that are declared by their own names.

    Raises:
        SettingsError: one is malformed, or named twice, or there is none.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        if isinstance(methods, str):
            raise invalid("methods", "a list of methods", methods, f"write [{methods!r}]")
        self.exact: set[str] = set()
        self._services: set[str] = set()
        for method in methods:
            check("each method", method, _IS_METHOD)
            service, _, name = method.rpartition("/")
            known, entry = (self._services, service) if name == "*" else (self.exact, method)
            if entry in known:
                raise SettingsError(f"methods names {method!r} twice: its key is claimed once")
            known.add(entry)
        if not self.exact and not self._services:
            raise invalid("methods", "at least one method", methods)

    def __contains__(self, method: str) -> bool:
        return method in self.exact or method.rpartition("/")[0] in self._services

    def names(self, method: str) -> bool:
        """Return whether a method is declared by its own name."""
        return method in self.exact
