"""Selectors: which methods a setting is for, with the most specific one winning.

The grammar is that of ``name`` in a gRPC service config, written as paths::

    /pkg.Service/Method     one method
    /pkg.Service/*          every method of a service
    *                       everything
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, TypeVar

from fusewire._validation import invalid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

T = TypeVar("T")

EVERYTHING = "*"

_SELECTOR = re.compile(r"/[^/*\s]+/(?:\*|[^/*\s]+)|\*")


def check_selector(setting: str, selector: object) -> str:
    """Return `selector` if it is one.

    Raises:
        SettingsError: it is not; the message names `setting`.
    """
    if isinstance(selector, str) and _SELECTOR.fullmatch(selector):
        return selector
    raise invalid(
        f"each selector in {setting}", "'/pkg.Service/Method', '/pkg.Service/*' or '*'", selector
    )


def place(setting: str, selector: str) -> str:
    """Return how messages name the value of a setting for one selector."""
    return f"{setting}[{selector!r}]"


class Selectors(Generic[T]):
    """Values by selector.

    Args:
        setting: the name of the setting, for messages.
        values: what each selector stands for.

    Raises:
        SettingsError: a selector is malformed.
    """

    def __init__(self, setting: str, values: Mapping[str, T]) -> None:
        self._values = {check_selector(setting, key): value for key, value in values.items()}

    def names(self, method: str) -> bool:
        """Return whether there is a value for this method alone."""
        return method in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def find(self, method: str) -> T | None:
        """Return the value for a method's path by its most specific selector, None without one."""
        selector = self.selector_of(method)
        return None if selector is None else self._values[selector]

    def selector_of(self, method: str) -> str | None:
        """Return the most specific selector of a method's path, None if none matches."""
        service, _, _ = method.rpartition("/")
        for selector in (method, f"{service}/*", EVERYTHING):
            if selector in self._values:
                return selector
        return None


def selected(setting: str, selectors: Collection[str]) -> Selectors[bool]:
    """Return a set of methods: its ``find`` returns True for those that `selectors` match.

    Raises:
        SettingsError: a selector is malformed, or a single string was given where several belong.
    """
    if isinstance(selectors, str):
        raise invalid(setting, "a collection of selectors", selectors, f"write {{{selectors!r}}}")
    return Selectors(setting, dict.fromkeys(selectors, True))
