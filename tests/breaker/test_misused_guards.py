"""What is wrong with a guard by name is refused when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, circuit_breaker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


def plain() -> None: ...


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        make()
    return str(caught.value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name must be a non-empty string, got ''"),
    ({"name": 3}, "name must be a non-empty string, got 3"),
    ({"settings": "critcal"}, "settings must be BreakerSettings, got 'critcal'; write fusewire."),
    ({"registry": 3}, "registry must be a BreakerRegistry, or None, got 3"),
    ({"fallback": 3}, "fallback must be a function or the name of one, got 3"),
    ({"fallback": "two words"}, "fallback must be a function or the name of one, got 'two words'"),
    ({"fallback": ""}, "fallback must be a function or the name of one, got ''"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_wrong_arguments_are_refused(given: dict[str, Any], said: str) -> None:
    arguments = {"name": "users", **given}
    assert refusal(lambda: circuit_breaker(**arguments)).startswith(said)


def test_the_decorator_without_its_name_is_refused() -> None:
    func: Any = plain
    assert refusal(lambda: circuit_breaker(func)) == (
        f'name must be a non-empty string, got {func!r}; write @circuit_breaker("its-name")'
    )


@pytest.mark.parametrize("func", [3, BreakerRegistry, property(len)])
def test_what_is_no_function_is_not_guarded(func: Any) -> None:
    assert refusal(lambda: circuit_breaker("users")(func)) == (
        f"what circuit_breaker guards must be a function, got {func!r}"
    )
