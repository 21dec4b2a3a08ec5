"""Fallbacks by name: where they are looked for, and when they are checked."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, _named_fallbacks, circuit_breaker
from fusewire.breaker._fallback_fit import check_fallback
from fusewire.breaker._named_fallbacks import NamedFallback
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

REGISTRY = BreakerRegistry(BreakerSettings(failure_threshold=10**9))


F = TypeVar("F", bound="Callable[..., Any]")


def guard(fallback: str) -> Callable[[F], F]:
    return circuit_breaker("users", fallback=fallback, registry=REGISTRY)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        make()
    return str(caught.value)


def above(user_id: str) -> str:
    return f"above {user_id}"


def takes_nothing() -> str:
    return "nothing"


@guard("above")
def load_above(user_id: str) -> str:
    raise ConnectionError


@guard("below")
def load_below(user_id: str) -> str:
    raise ConnectionError


@guard("unfit_below")
def load_unfit(user_id: str) -> str:
    return user_id


@guard("missing")
def load_missing(user_id: str) -> str:
    return user_id


def below(user_id: str, error: Exception) -> str:
    return f"below {user_id}: {error!r}"


def unfit_below() -> str:
    return "unfit"


def test_a_functions_fallback_is_a_function_of_its_module() -> None:
    assert load_above("7") == load_above(user_id="7") == "above 7"
    assert load_below("7") == "below 7: ConnectionError()"


def test_one_that_stands_above_is_checked_when_the_function_is_decorated() -> None:
    def load(user_id: str) -> str:
        return user_id

    assert refusal(lambda: guard("takes_nothing")(load)) == (
        f"fallback must take what {__name__}.{load.__qualname__}(user_id: 'str') -> 'str' takes, "
        "under the same names, and may take the error as one parameter more, got "
        f"{__name__}.takes_nothing() -> 'str'"
    )


def test_others_are_checked_at_the_first_call_even_if_that_would_succeed() -> None:
    for _ in range(2):
        assert "unfit_below" in refusal(lambda: load_unfit("7"))
        assert refusal(lambda: load_missing("7")) == (
            f"fallback of {__name__}.load_missing must name a function of module {__name__}, got "
            "'missing'"
        )


def test_a_name_is_looked_up_at_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_above("7") == "above 7"
    monkeypatch.setitem(globals(), "above", lambda user_id, error: f"patched {user_id}")
    assert load_above("7") == "patched 7"
    monkeypatch.setitem(globals(), "above", lambda: "unfit")
    with pytest.raises(SettingsError) as caught:
        load_above("7")
    assert isinstance(caught.value.__cause__, ConnectionError)
    monkeypatch.undo()
    assert load_above("7") == "above 7"


class Users:
    @guard("_cached")
    def load(self, user_id: str) -> str:
        raise ConnectionError

    @guard("_cached")
    async def load_async(self, user_id: str) -> str:
        raise ConnectionError

    @guard("_static")
    def load_by_static(self, user_id: str) -> str:
        raise ConnectionError

    @guard("_of_class")
    def load_by_class(self, user_id: str) -> str:
        raise ConnectionError

    @staticmethod
    @guard("_static")
    def static_above(user_id: str) -> str:
        raise ConnectionError

    @guard("_static")
    @staticmethod
    def static_beneath(user_id: str) -> str:
        raise ConnectionError

    @classmethod
    @guard("_of_class")
    def class_above(cls, user_id: str) -> str:
        raise ConnectionError

    @guard("_of_class")
    @classmethod
    def class_beneath(cls, user_id: str) -> str:
        raise ConnectionError

    @guard("_missing")
    def load_missing(self, user_id: str) -> str:
        return user_id

    @guard("_unfit")
    def load_unfit(self, user_id: str) -> str:
        return user_id

    @guard("_async")
    def load_of_another_kind(self, user_id: str) -> str:
        return user_id

    @guard("above")
    def load_of_module(self, user_id: str) -> str:
        return user_id

    def _cached(self, user_id: str, error: Exception) -> str:
        return f"{type(self).__name__} {user_id} {type(error).__name__}"

    @staticmethod
    def _static(user_id: str) -> str:
        return f"static {user_id}"

    @classmethod
    def _of_class(cls, user_id: str) -> str:
        return f"{cls.__name__} {user_id}"

    def _unfit(self, other: str, error: Exception) -> str:
        return other

    async def _async(self, user_id: str) -> str:
        return user_id

    @guard("_pages")
    def pages(self, count: int) -> Iterator[str]:
        raise ConnectionError
        yield ""

    @guard("_pages")
    async def pages_async(self, count: int) -> AsyncIterator[str]:
        raise ConnectionError
        yield ""

    def _pages(self, count: int, error: Exception) -> list[str]:
        return [type(error).__name__] * count

    def _cached_in(self, region: str, user_id: str) -> str:
        return f"{region} {user_id}"

    _in_europe = functools.partialmethod(_cached_in, "eu")

    @guard("_in_europe")
    def load_by_partial(self, user_id: str) -> str:
        raise ConnectionError

    class Inner:
        @staticmethod
        @guard("_static")
        def load(user_id: str) -> str:
            raise ConnectionError

        @staticmethod
        def _static(user_id: str) -> str:
            return f"inner {user_id}"


async def test_a_methods_fallback_is_a_method_of_its_class() -> None:
    users = Users()
    assert users.load("7") == users.load(user_id="7") == "Users 7 ConnectionError"
    assert await users.load_async("7") == "Users 7 ConnectionError"
    assert users.load_by_static("7") == "static 7"
    assert users.load_by_class("7") == "Users 7"
    for holder in (users, Users):
        assert holder.static_above("7") == holder.static_beneath("7") == "static 7"
        assert holder.class_above("7") == holder.class_beneath("7") == "Users 7"
    assert Users.Inner.load("7") == Users.Inner().load(user_id="7") == "inner 7"


async def test_so_is_that_of_a_method_that_yields_items() -> None:
    users = Users()
    assert list(users.pages(2)) == ["ConnectionError"] * 2
    assert [each async for each in users.pages_async(count=1)] == ["ConnectionError"]


def test_a_fallback_that_is_another_object_each_time_is_not_kept_each_time() -> None:
    users, answer = Users(), NamedFallback(Users.load_by_partial, "_in_europe")
    for number in range(100):
        assert users.load_by_partial(str(number)) == f"eu {number}"
        assert answer(ConnectionError(), (users, "7"), {}) == "eu 7"
        assert 0 < len(answer._known) <= 32


def test_a_fallback_is_checked_once_for_all_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def check(*given: Any) -> Any:
        checked.append(given)
        return check_fallback(*given)

    monkeypatch.setattr(_named_fallbacks, "check_fallback", check)

    class Local:
        @guard("_cached")
        def load(self, user_id: str) -> str:
            raise ConnectionError

        def _cached(self, user_id: str) -> str:
            return user_id

    for user_id in ("7", "8"):
        assert Local().load(user_id) == user_id
    assert len(checked) == 1


MODULE = """
def below(user_id):
    return f"of the module {user_id}"

class Users:
    @guard("below")
    def load(self, user_id):
        raise ConnectionError

    def below(self, user_id, error):
        return f"of the class {user_id}"

    @staticmethod
    @guard("_static")
    def static(user_id):
        raise ConnectionError

    @staticmethod
    def _static(user_id):
        return f"static {user_id}"
"""


def test_what_a_class_and_its_module_have_under_one_name_is_the_classs() -> None:
    namespace: dict[str, Any] = {"__name__": "accounts", "guard": guard}
    exec(MODULE, namespace)  # noqa: S102 - a module of its own
    users = namespace["Users"]
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        users.load()
    assert users().load("7") == "of the class 7"
    assert users.static("7") == users().static("7") == "static 7"


def test_a_methods_fallback_is_checked_at_the_first_call() -> None:
    users = Users()
    assert refusal(lambda: users.load_missing("7")) == (
        f"fallback of {__name__}.Users.load_missing must name a function of Users, got '_missing'"
    )
    assert refusal(lambda: users.load_of_module("7")).endswith("of Users, got 'above'")
    assert refusal(lambda: users.load_unfit("7")) == (
        f"fallback must take what {__name__}.Users.load_unfit(user_id: 'str') -> 'str' takes, "
        "under the same names, and may take the error as one parameter more, got "
        f"{__name__}.Users._unfit(other: 'str', error: 'Exception') -> 'str'"
    )
    assert refusal(lambda: users.load_of_another_kind("7")) == (
        f"fallback of the plain function {__name__}.Users.load_of_another_kind must be a plain "
        f"function, got {__name__}.Users._async, a coroutine function"
    )


def test_a_subclass_may_replace_it() -> None:
    class Members(Users):
        def _cached(self, user_id: str) -> str:  # type: ignore[override] # the error may be left out
            return f"member {user_id}"

    assert Members().load("7") == "member 7"
    assert Users().load("7") == "Users 7 ConnectionError"
    assert Members.class_above("7") == "Members 7"


async def test_classes_inside_functions_have_methods_too() -> None:
    class Local:
        @guard("_cached")
        def load(self, user_id: str) -> str:
            raise ConnectionError

        @classmethod
        @guard("_of_class")
        def load_by_class(cls, user_id: str) -> str:
            raise ConnectionError

        def _cached(self, user_id: str) -> str:
            return f"local {user_id}"

        @classmethod
        def _of_class(cls, user_id: str) -> str:
            return f"{cls.__name__} {user_id}"

        @guard("_cached")
        async def load_async(self, user_id: str) -> str:
            raise ConnectionError

        @guard("_pages")
        def pages(self, user_id: str) -> Iterator[str]:
            raise ConnectionError
            yield ""

        @guard("_pages")
        async def pages_async(self, user_id: str) -> AsyncIterator[str]:
            raise ConnectionError
            yield ""

        def _pages(self, user_id: str) -> list[str]:
            return [user_id]

    assert Local().load("7") == await Local().load_async("7") == "local 7"
    assert Local.load_by_class("7") == "Local 7"
    assert list(Local().pages("7")) == [each async for each in Local().pages_async("7")] == ["7"]


def test_a_static_method_of_a_class_inside_a_function_needs_the_function_itself() -> None:
    class Local:
        @staticmethod
        @guard("_cached")
        def load(user_id: str) -> str:
            return user_id

        @staticmethod
        def _cached(user_id: str) -> str:
            return user_id

    assert "Local, got '_cached'" in refusal(lambda: Local.load("7"))


def test_a_call_without_self_fails_as_it_would_without_a_guard() -> None:
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Users.load()  # type: ignore[call-arg] # as a slip


def test_a_decorated_function_is_looked_for_where_it_was_written() -> None:
    def logged(func: Any) -> Any:
        @functools.wraps(func)
        def run(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        return run

    def load(user_id: str) -> str:
        raise ConnectionError

    assert guard("above")(logged(load))("7") == "above 7"
    assert guard("above")(functools.partial(load))("7") == "above 7"


def test_what_has_no_module_to_look_in_needs_the_function_itself() -> None:
    assert refusal(lambda: guard("above")(len)) == (
        "fallback of builtins.len, which is no function of Python, must be a function, got the "
        "name 'above'"
    )
