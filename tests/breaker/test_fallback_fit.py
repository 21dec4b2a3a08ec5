"""Which fallbacks fit a function: those that can be called whenever the function can."""

from __future__ import annotations

import functools
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusewire.breaker._fallback_fit import answer_by, answer_of, check_fallback, check_kind
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def refused(func: Any, fallback: Any, skip: int = 0) -> bool:
    try:
        check_fallback(func, fallback, skip)
    except SettingsError:
        return True
    return False


def load(user_id: str, region: str) -> None: ...


def load_here(user_id: str, region: str = "eu") -> None: ...


def anything(*args: Any, **kwargs: Any) -> None: ...


def by_position(user_id: str, /) -> None: ...


def by_name(*, user_id: str) -> None: ...


@pytest.mark.parametrize(
    ("func", "fallback", "error"),
    [
        (load, lambda user_id, region: 0, None),
        (load, lambda user_id, region, error: 0, "error"),
        (load, lambda user_id, region, cause: 0, "cause"),
        (load, lambda user_id, region, *, error: 0, "error"),
        (load, lambda user_id, region, error=None: 0, "error"),
        (load, lambda user_id, region, error=None, ttl=3: 0, "error"),
        (load, lambda user_id, region, ttl=3: 0, None),
        (load, lambda *args, **kwargs: 0, None),
        (load, lambda *args, error, **kwargs: 0, "error"),
        (load, lambda user_id, region="eu", *others, **more: 0, None),
        (load_here, lambda user_id, region="us", error=None: 0, "error"),
        (lambda first, *more: 0, lambda first, *more: 0, None),
        (lambda first, **more: 0, lambda first, **more: 0, None),
        (lambda first, **more: 0, lambda first, error, **more: 0, "error"),
        (anything, lambda *args, **kwargs: 0, None),
        (anything, lambda *args, error, **kwargs: 0, "error"),
        (by_position, lambda user_id: 0, None),
        (by_position, lambda other, /: 0, None),
        (by_name, lambda user_id: 0, None),
        (by_name, lambda *, error, user_id: 0, "error"),
        (lambda error: 0, lambda error: 0, None),
        (lambda: 0, lambda error: 0, "error"),
        (max, lambda: 0, None),
        (load, max, None),
    ],
)
def test_a_fallback_may_take_the_error(func: Any, fallback: Any, error: str | None) -> None:
    fit = check_fallback(func, fallback)
    assert (fit.fits, fit.error) == (True, error)


@pytest.mark.parametrize(
    "fallback",
    [
        lambda: 0,
        lambda user_id="": 0,
        lambda user_id, error: 0,
        lambda region, user_id: 0,
        lambda *, region, user_id: 0,
        lambda user, region: 0,
        lambda error, user_id, region: 0,
        lambda user_id, region, error, more: 0,
        lambda user_id, region, error, /: 0,
        lambda user_id, *, region: 0,
        lambda user_id, region, /: 0,
        lambda *args: 0,
        lambda **kwargs: 0,
    ],
)
def test_one_that_some_call_of_the_function_would_break_is_refused(fallback: Any) -> None:
    assert refused(load, fallback)


def test_what_may_be_left_out_may_be_left_out_of_the_fallback_too() -> None:
    assert refused(load_here, lambda user_id, region: 0)
    assert refused(load_here, lambda user_id, region, error: 0)
    assert refused(by_position, lambda other: 0), "the one parameter would be the error's too"


def test_an_argument_by_position_does_not_take_the_place_of_another() -> None:
    assert refused(lambda a: 0, lambda first=0, /, a=0: 0)
    assert refused(lambda a: 0, lambda first=0, a=0, *, error: 0)


def test_more_arguments_than_a_fallback_has_room_for_are_thought_of() -> None:
    def many(*user_ids: str) -> None: ...

    def more(**options: str) -> None: ...

    assert refused(many, lambda user_ids=(): 0)
    assert refused(many, lambda a=0, b=0, c=0: 0)
    assert refused(many, lambda a=0, b=0, c=0, error=None, *others: 0)
    assert not refused(many, lambda a=0, *others: 0)
    assert refused(anything, lambda a=0, *args, **kwargs: 0), "a caller may give it twice"
    assert not refused(anything, lambda *args, a=0, **kwargs: 0)
    assert refused(lambda a, /, **more: 0, lambda a, **more: 0), "as above"
    assert not refused(lambda a, /, **more: 0, lambda a, /, **more: 0)
    assert refused(more, lambda options=(): 0)
    assert refused(many, lambda first, *others: 0)


def test_a_bound_fallback_takes_what_is_left() -> None:
    def method(self: object, user_id: str) -> None: ...

    assert check_fallback(method, lambda user_id, error: 0, skip=1).error == "error"
    assert refused(method, lambda self, user_id: 0, skip=1)
    assert refused(method, lambda user_id: 0)


def test_an_answer_gives_the_error_by_name() -> None:
    error = ConnectionError()
    taken = answer_by(lambda *args, **kwargs: (args, kwargs), "error")
    assert taken(error, (1,), {"a": 2}) == ((1,), {"a": 2, "error": error})
    assert taken(error, (), {"error": "the caller's"}) == ((), {"error": error})
    left = answer_by(lambda *args, **kwargs: (args, kwargs), None)
    assert left(error, (1,), {"a": 2}) == ((1,), {"a": 2})


def test_a_fallback_that_does_not_fit_gets_no_error_where_that_was_never_refused() -> None:
    error = ConnectionError()
    assert answer_of(load, lambda other, place: (other, place))(error, (1, 2), {}) == (1, 2)
    given_it = answer_of(load, lambda user_id, region, error: error)
    assert given_it(error, (1, 2), {}) is error


def plain(user_id: str) -> None: ...


async def coroutine(user_id: str) -> None: ...


def generator(user_id: str) -> Iterator[str]:
    yield user_id


async def async_generator(user_id: str) -> AsyncIterator[str]:
    yield user_id


KINDS: dict[Any, str] = {
    plain: "plain function",
    coroutine: "coroutine function",
    generator: "generator function",
    async_generator: "async generator function",
}
UNFIT: list[tuple[Any, Any, str]] = [
    (plain, coroutine, "plain function"),
    (generator, coroutine, "plain function or generator function"),
    (generator, async_generator, "plain function or generator function"),
    (async_generator, coroutine, "plain function or async generator function"),
]


def test_a_fallback_whose_result_is_of_no_use_is_refused() -> None:
    for func, fallback, wanted in UNFIT:
        with pytest.raises(SettingsError) as caught:
            check_fallback(func, fallback)
        assert str(caught.value) == (
            f"fallback of the {KINDS[func]} {__name__}.{func.__name__} must be a {wanted}, got "
            f"{__name__}.{fallback.__name__}, a {KINDS[fallback]}"
        )
    fitting = [
        (func, fallback)
        for func in KINDS
        for fallback in KINDS
        if not any((func, fallback) == each[:2] for each in UNFIT)
    ]
    for func, fallback in fitting:
        check_kind(func, fallback)
        assert not refused(func, fallback)
        assert not refused(functools.partial(func), fallback)


GIVEN_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
NAMES = ["a", "b", "c", "error"]
KINDS_OF_PARAMETERS = [
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.VAR_POSITIONAL,
    Parameter.KEYWORD_ONLY,
    Parameter.VAR_KEYWORD,
]


def function_of(parameters: list[Parameter]) -> Any:
    """Make a function that returns its arguments by name."""
    made = Signature(sorted(parameters, key=lambda each: each.kind))
    return eval(f"lambda {str(made)[1:-1]}: locals()")  # noqa: S307 - any function there may be


@st.composite
def functions(draw: st.DrawFn) -> Any:
    """Make a function of any signature."""
    parameters: list[Parameter] = []
    for name in draw(st.permutations(NAMES))[: draw(st.integers(0, 4))]:
        kind = draw(st.sampled_from(KINDS_OF_PARAMETERS))
        if kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            if not any(each.kind is kind for each in parameters):
                parameters.append(Parameter(f"many_{name}", kind))
        else:
            parameters.append(Parameter(name, kind))
    if draw(st.booleans()):
        parameters = [
            each
            if each.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
            else each.replace(default="default")
            for each in parameters
        ]
    return function_of(parameters)


@st.composite
def relatives(draw: st.DrawFn, func: Any) -> Any:
    """Make a function whose signature is much like that of `func`."""
    parameters: list[Parameter] = list(signature(func).parameters.values())
    shorter, longer = draw(st.booleans()), draw(st.booleans())
    if parameters and shorter:
        parameters.remove(draw(st.sampled_from(parameters)))
    if longer:
        named = [Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY]
        parameters.append(Parameter("cause", draw(st.sampled_from(named))))
    try:
        return function_of(parameters)
    except ValueError:  # one without a default after one with a default
        return func


@settings(deadline=None, suppress_health_check=list(HealthCheck))  # a busy machine is slow
@given(func=functions(), data=st.data())
def test_one_that_is_taken_can_be_called_whenever_the_function_can(
    func: Any, data: st.DataObject
) -> None:
    fallback = data.draw(functions() | relatives(func))
    try:
        fit = check_fallback(func, fallback)
    except SettingsError:
        return
    args = tuple(f"value {number}" for number in range(data.draw(st.integers(0, 4))))
    kwargs = {name: name for name in data.draw(st.sets(st.sampled_from([*NAMES, "other"])))}
    try:
        by_func = func(*args, **kwargs)
    except TypeError:
        return
    error = ConnectionError()
    by_fallback = answer_by(fallback, fit.error)(error, args, kwargs)
    for name, value in by_fallback.items():
        if name == fit.error:
            assert value is error
        elif name in by_func and signature(func).parameters[name].kind in GIVEN_BY_NAME:
            assert value == by_func[name], name
