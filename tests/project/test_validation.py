"""What is wrong about a setting is said in one form, with what to write instead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fusewire._validation import (
    COUNT,
    DELAYS,
    SECONDS,
    SECONDS_OR_ZERO,
    Rule,
    check,
    check_callable,
    check_plain_function,
    check_text,
    count_up_to,
    instance_of,
    number_from,
    one_of,
)
from fusewire.errors import SettingsError

SOUND: list[tuple[Rule, Any]] = [
    (COUNT, 1),
    (COUNT.or_none, None),
    (SECONDS, 0.5),
    (SECONDS_OR_ZERO, 0),
    (DELAYS, (1, 5.5)),
    (DELAYS, [0.001]),
    (count_up_to(3, "which is enough"), 3),
    (number_from(1, 2), 1.5),
    (one_of("park", "pause"), "park"),
    (instance_of(dict), {}),
]
WRONG: list[tuple[Rule, Any, str]] = [
    (COUNT, True, "a whole number of at least 1, got True"),
    (COUNT.or_none, 0, "a whole number of at least 1, or None, got 0"),
    (SECONDS, float("inf"), "a finite number of seconds above 0, got inf"),
    (
        SECONDS,
        timedelta(seconds=2),
        (
            "a finite number of seconds above 0, got datetime.timedelta(seconds=2); write 2.0, its "
            "total_seconds()"
        ),
    ),
    (SECONDS_OR_ZERO, -1, "a finite number of seconds of at least 0, got -1"),
    (count_up_to(3, "which is enough"), 4, "a whole number from 1 to 3, which is enough, got 4"),
    (number_from(1, 2.5), "2", "a number from 1 to 2.5, got '2'"),
    (one_of("park", "pause"), "puase", "'park' or 'pause', got 'puase'; did you mean 'pause'?"),
    (one_of("park", "pause"), [], "'park' or 'pause', got []"),
    (instance_of(Exception), 3, "an Exception, got 3"),
    (COUNT, "x" * 300, f"a whole number of at least 1, got '{'x' * 199}…"),
]


@pytest.mark.parametrize(("rule", "value"), SOUND)
def test_a_value_that_a_rule_accepts_is_returned(rule: Rule, value: Any) -> None:
    assert check("x", value, rule) is value


@pytest.mark.parametrize(("rule", "value", "said"), WRONG)
def test_a_value_that_a_rule_refuses_is_named_with_what_is_accepted(
    rule: Rule, value: Any, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check("x", value, rule)
    assert str(caught.value) == f"x must be {said}"


@pytest.mark.parametrize("delays", [(), (5, 1), (1, 1.0001), (0,), ("5",), 5, (True,), "15"])
def test_delays_that_do_not_grow_are_refused(delays: Any) -> None:
    with pytest.raises(SettingsError, match=r"^delays must be growing seconds"):
        check("delays", delays, DELAYS)


async def _coroutine(_message: object) -> None: ...


class _Asynchronous:
    async def __call__(self, _message: object) -> None: ...


def _generator(_message: object) -> Any:
    yield


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (3, "got 3"),
        (int, "got builtins.int, a class: calling it only makes an object"),
        (_generator, "_generator, a generator function: calling it runs none of its code"),
        (lambda: None, "which cannot be called so: too many positional arguments"),
        (lambda _a, b: b, "which cannot be called so: missing a required argument: 'b'"),
        (_coroutine, "_coroutine, a coroutine function: nobody awaits what it returns"),
        (_Asynchronous(), "_Asynchronous, a coroutine function: nobody awaits what it returns"),
    ],
)
def test_what_cannot_do_its_work_when_it_is_called_is_refused(function: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_plain_function("listener", function, "an event")
    assert str(caught.value).startswith("listener must be a ")
    assert said in str(caught.value)


@pytest.mark.parametrize("function", [print, _coroutine, _Asynchronous(), lambda message: message])
def test_what_can_be_called_with_its_argument_is_taken(function: Any) -> None:
    check_callable("handler", function, "a message")


@pytest.mark.parametrize("text", ["", None, 7, b"bytes", "half a pair \ud800"])
def test_a_text_that_cannot_be_stored_is_refused(text: Any) -> None:
    with pytest.raises(SettingsError, match=r"^queue must be a .*string.*, got"):
        check_text("queue", text)
