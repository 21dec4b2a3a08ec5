"""Methods of all kinds, and objects that are called, behind a guard."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    circuit_breaker,
)

if TYPE_CHECKING:
    from fusewire.breaker import Counters
    from fusewire.testing import FakeClock

STRICT = BreakerSettings(failure_threshold=1, recovery_timeout=10, half_open_max_calls=1)


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(STRICT, clock=clock)


async def fail_async(user_id: str) -> str:
    raise ConnectionError(user_id)


def counted(registry: BreakerRegistry) -> Counters:
    return registry.get("users").snapshot().counters


def test_a_partial_and_an_object_that_is_called_are_guarded(registry: BreakerRegistry) -> None:
    class Client:
        def __call__(self, user_id: str) -> str:
            return f"called {user_id}"

    guard = circuit_breaker("users", registry=registry)
    assert guard(functools.partial(max, 3))(4) == 4
    assert guard(Client())("7") == "called 7"
    awaited = guard(functools.partial(fail_async, "7"))
    assert inspect.iscoroutinefunction(awaited)


class Users:
    """Methods of all kinds, in both orders of decorators."""

    registry = BreakerRegistry(BreakerSettings(failure_threshold=9))

    @circuit_breaker("users", registry=registry)
    def method(self, user_id: str) -> tuple[object, str]:
        return self, user_id

    @circuit_breaker("users", registry=registry)
    @staticmethod
    def static_beneath(user_id: str) -> str:
        return user_id

    @staticmethod
    @circuit_breaker("users", registry=registry)
    def static_above(user_id: str) -> str:
        return user_id

    @circuit_breaker("users", registry=registry)
    @classmethod
    def class_beneath(cls, user_id: str) -> tuple[object, str]:
        return cls, user_id

    @classmethod
    @circuit_breaker("users", registry=registry)
    def class_above(cls, user_id: str) -> tuple[object, str]:
        return cls, user_id


def test_methods_of_all_kinds_are_guarded_whatever_the_order_of_decorators() -> None:
    users = Users()
    Users.registry.remove("users")  # the class outlives this test
    assert users.method("7") == (users, "7")
    assert Users.method(users, "7") == (users, "7")
    for holder in (users, Users):
        assert holder.static_beneath("7") == holder.static_above("7") == "7"
        assert holder.class_beneath("7") == holder.class_above("7") == (Users, "7")
    assert counted(Users.registry).succeeded == 10
    assert isinstance(inspect.getattr_static(Users, "static_beneath"), staticmethod)
    assert isinstance(inspect.getattr_static(Users, "class_beneath"), classmethod)


def test_a_breaker_itself_guards_static_and_class_methods_too() -> None:
    breaker = CircuitBreaker("users")

    class Own:
        @breaker
        @staticmethod
        def static(user_id: str) -> str:
            return user_id

        @breaker
        @classmethod
        def of_class(cls, user_id: str) -> tuple[object, str]:
            return cls, user_id

    own: Any = Own
    assert own().static("7") == own.static("7") == "7"
    assert own().of_class("7") == own.of_class("7") == (Own, "7")
    assert breaker.snapshot().counters.succeeded == 4


def test_the_fallback_of_a_static_or_class_method_answers_for_it() -> None:
    breaker = CircuitBreaker("users")
    guard: Any = breaker(fallback=lambda *args: ("kept", *args))
    breaker.force_open()

    def load(*_: object) -> None:
        raise AssertionError

    class Made:
        static = guard(staticmethod(load))
        of_class = guard(classmethod(load))

    made: Any = Made
    assert made.static("7") == made().static("7") == ("kept", "7")
    assert made.of_class("7") == made().of_class("7") == ("kept", Made, "7")


def test_a_guard_above_a_static_or_class_method_keeps_its_kind(registry: BreakerRegistry) -> None:
    def load(cls: object, user_id: str) -> tuple[object, str]:
        return cls, user_id

    guard: Any = circuit_breaker("users", registry=registry)

    class Made:
        static = guard(staticmethod(load))
        of_class = guard(classmethod(load))

    made: Any = Made
    assert made.static(1, "7") == made().static(1, "7") == (1, "7")
    assert made.of_class("7") == made().of_class("7") == (Made, "7")
    assert counted(registry).succeeded == 4
