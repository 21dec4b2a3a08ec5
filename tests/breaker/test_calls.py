"""Calls through a circuit: plain and awaited, decorated and direct, with and without fallback."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Outcome,
)
from fusewire.errors import FusewireError, SettingsError
from fusewire.operation import without_fallbacks
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fusewire.testing import FakeClock


def charge(amount: int, *, currency: str = "EUR") -> str:
    """Charge."""
    return f"{amount} {currency}"


async def charge_async(amount: int, *, currency: str = "EUR") -> str:
    """Charge."""
    await asyncio.sleep(0)
    return f"{amount} {currency}"


def fail(*args: object, **kwargs: object) -> str:
    raise ConnectionError("down")


async def fail_async(*args: object, **kwargs: object) -> str:
    await asyncio.sleep(0)
    raise ConnectionError("down")


def test_a_call_gives_what_the_function_gives(breaker: CircuitBreaker) -> None:
    assert breaker.call(charge, 3, currency="USD") == "3 USD"


def test_failures_open_the_circuit_and_pass_through(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        with pytest.raises(ConnectionError, match="down"):
            breaker.call(fail)
    with pytest.raises(CircuitOpenError):
        breaker.call(charge, 3)


def test_a_decorated_function_keeps_its_face(breaker: CircuitBreaker) -> None:
    guarded = breaker(charge)
    assert guarded(3, currency="USD") == "3 USD"
    assert guarded.__name__ == "charge"
    assert guarded.__doc__ == "Charge."
    assert inspect.signature(guarded) == inspect.signature(charge)


async def test_a_decorated_coroutine_function_stays_one(breaker: CircuitBreaker) -> None:
    guarded = breaker(charge_async)
    assert inspect.iscoroutinefunction(guarded)
    assert await guarded(3, currency="USD") == "3 USD"
    failing = breaker(fail_async)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await failing()
    with pytest.raises(CircuitOpenError):
        await guarded(3)


async def test_a_coroutine_is_guarded_while_it_is_awaited(breaker: CircuitBreaker) -> None:
    assert await breaker.call_async(charge_async, 3) == "3 EUR"
    assert await breaker.call(charge_async, 3) == "3 EUR"
    pending = [breaker.call(fail_async), breaker.call(lambda: fail_async())]  # noqa: PLW0108 - a plain function that gives a coroutine
    assert breaker.state is CircuitState.CLOSED
    for coroutine in pending:
        with pytest.raises(ConnectionError):
            await coroutine
    assert breaker.state is CircuitState.OPEN


async def test_partials_and_async_callables_are_recognized(breaker: CircuitBreaker) -> None:
    class Client:
        async def __call__(self, amount: int) -> str:
            return await charge_async(amount)

    assert inspect.iscoroutinefunction(breaker(functools.partial(charge_async, 3)))
    assert await breaker.call(Client(), 4) == "4 EUR"


def test_exceptions_that_are_not_expected_do_not_count(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 1, expected_exceptions=(OSError,), clock=clock)
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 // 0)
    assert breaker.state is CircuitState.CLOSED
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    assert breaker.state is CircuitState.OPEN


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
        GeneratorExit,
        KeyboardInterrupt,
        SystemExit,
    ],
)
def test_leaving_never_counts_whatever_is_expected(
    clock: FakeClock, error: type[BaseException]
) -> None:
    breaker = CircuitBreaker(
        "payments", 1, 10, 1, expected_exceptions=(BaseException,), clock=clock
    )

    def leave() -> None:
        raise error

    with pytest.raises(error):
        breaker.call(leave)
    assert breaker.state is CircuitState.CLOSED
    half_open_circuit(breaker, clock)
    with pytest.raises(error):
        breaker.call(leave)
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.can_execute()


def test_a_rejection_by_an_inner_circuit_does_not_count(clock: FakeClock) -> None:
    inner, outer = (CircuitBreaker(name, 1, clock=clock) for name in ("inner", "outer"))
    open_circuit(inner)
    with pytest.raises(CircuitOpenError, match="inner"):
        outer.call(inner(charge), 3)
    assert outer.state is CircuitState.CLOSED


def test_a_permit_settles_itself_at_the_end_of_its_block(breaker: CircuitBreaker) -> None:
    with pytest.raises(ConnectionError), breaker.acquire():
        fail()
    with breaker.acquire() as permit:
        assert permit.name == "payments"
    for _ in range(2):
        with pytest.raises(ConnectionError), breaker.acquire():
            fail()
    assert breaker.state is CircuitState.OPEN


async def test_a_permit_settles_itself_at_the_end_of_its_async_block(
    breaker: CircuitBreaker,
) -> None:
    async with breaker.acquire() as permit:
        permit.failure()
    with pytest.raises(ConnectionError):
        async with breaker.acquire():
            await fail_async()
    assert breaker.state is CircuitState.OPEN


def test_a_fallback_answers_for_failures_and_rejections(breaker: CircuitBreaker) -> None:
    assert breaker.call_with_fallback(charge, 3, fallback=lambda amount: f"later {amount}") == (
        "3 EUR"
    )
    for _ in range(3):
        reply = breaker.call_with_fallback(
            fail, 3, currency="USD", fallback=lambda amount, currency: f"later {amount} {currency}"
        )
        assert reply == "later 3 USD"
    assert breaker.state is CircuitState.OPEN


def test_the_breakers_own_fallback_answers_unless_another_is_given(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 1, fallback=lambda amount: f"own {amount}", clock=clock)
    assert breaker.call_with_fallback(fail, 3) == "own 3"
    assert breaker.call_with_fallback(fail, 3, fallback=lambda amount: f"given {amount}") == (
        "given 3"
    )
    assert breaker(fail)(3) == "own 3"
    with pytest.raises(CircuitOpenError):
        breaker.call(fail, 3)


def test_without_any_fallback_the_error_is_raised(breaker: CircuitBreaker) -> None:
    with pytest.raises(ConnectionError):
        breaker.call_with_fallback(fail)


def test_a_fallback_does_not_answer_for_what_does_not_count(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", expected_exceptions=(OSError,), clock=clock)
    with pytest.raises(ZeroDivisionError):
        breaker.call_with_fallback(lambda: 1 // 0, fallback=lambda: 1)


def test_a_fallback_that_fails_too_names_the_first_error_as_its_cause(
    breaker: CircuitBreaker,
) -> None:
    def fallback() -> str:
        raise LookupError("no cache")

    with pytest.raises(LookupError) as caught:
        breaker.call_with_fallback(fail, fallback=fallback)
    assert isinstance(caught.value.__cause__, ConnectionError)


async def test_fallbacks_of_coroutine_functions_may_be_either_kind(
    breaker: CircuitBreaker,
) -> None:
    async def later(amount: int) -> str:
        return await charge_async(amount, currency="later")

    assert await breaker.call_with_fallback(fail_async, 3, fallback=later) == "3 later"
    assert await breaker.call_with_fallback(fail_async, 3, fallback=charge) == "3 EUR"
    assert await breaker.call_with_fallback(charge_async, 3, fallback=later) == "3 later"
    with pytest.raises(CircuitOpenError):
        await breaker.call_with_fallback(charge_async, 3)


async def test_an_async_fallback_that_fails_too_names_the_first_error_as_its_cause(
    breaker: CircuitBreaker,
) -> None:
    async def fallback() -> str:
        raise LookupError("no cache")

    with pytest.raises(LookupError) as caught:
        await breaker.call_with_fallback(fail_async, fallback=fallback)
    assert isinstance(caught.value.__cause__, ConnectionError)


async def test_fallbacks_can_be_suppressed(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 2, fallback=charge, clock=clock)
    with without_fallbacks():
        with pytest.raises(ConnectionError):
            breaker.call_with_fallback(fail, 3)
        with pytest.raises(ConnectionError):
            await breaker.call_with_fallback(fail_async, 3)
        with pytest.raises(CircuitOpenError):
            breaker(charge)(3)
    assert breaker(charge)(3) == "3 EUR"


def test_one_except_clause_catches_all_errors_of_the_package(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    with pytest.raises(FusewireError):
        breaker.call(charge, 3)


def test_a_breaker_shows_its_name_and_state(breaker: CircuitBreaker) -> None:
    assert repr(breaker) == "<CircuitBreaker 'payments' closed>"


async def test_a_decorator_may_have_a_fallback_of_its_own(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", fallback=lambda *_: "breaker's", clock=clock)

    @breaker(fallback=lambda amount: f"own {amount}")
    def guarded(amount: int) -> str:
        return fail(amount)

    @breaker(fallback=lambda amount: f"own {amount}")
    async def guarded_async(amount: int) -> str:
        return await fail_async(amount)

    async def own_async(amount: int) -> str:
        return f"own {amount}"

    assert guarded(3) == "own 3"
    assert await guarded_async(3) == "own 3"
    assert await breaker(fail_async, fallback=own_async)(3) == "own 3"
    assert guarded.__name__ == "guarded"
    assert breaker(fail, fallback=lambda *_: "given")(3) == "given"
    assert breaker()(fail)(3) == "breaker's"


def test_an_async_fallback_for_a_plain_function_is_refused(breaker: CircuitBreaker) -> None:
    with pytest.raises(SettingsError) as refused:
        breaker(fail, fallback=fail_async)
    assert str(refused.value) == (
        f"fallback of the plain function {__name__}.fail must be a plain function, got "
        f"{__name__}.fail_async, a coroutine function"
    )


async def test_a_coroutine_of_a_plain_function_has_its_fallback(breaker: CircuitBreaker) -> None:
    def make(amount: int) -> Awaitable[str]:
        return fail_async(amount)

    for _ in range(3):
        assert await breaker.call_with_fallback(make, 3, fallback=charge_async) == "3 EUR"
    assert breaker.state is CircuitState.OPEN


async def test_a_coroutine_of_a_plain_function_has_its_fallback_as_a_probe_too(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    guarded = breaker(lambda amount: fail_async(amount), fallback=charge)  # noqa: PLW0108 - a plain function
    assert await guarded(3) == "3 EUR"
    assert breaker.state is CircuitState.OPEN


async def test_a_coroutine_of_a_plain_function_is_no_call_until_it_is_awaited(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    pending = [breaker.call(lambda: charge_async(3)) for _ in range(3)]
    assert breaker.snapshot().probes_running == 0
    assert [await each for each in pending] == ["3 EUR"] * 3
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.ignored) == (3, 0)


async def test_a_rejected_coroutine_is_closed(breaker: CircuitBreaker, clock: FakeClock) -> None:
    pending = breaker.call(lambda: charge_async(3))
    breaker.force_open()
    with pytest.raises(CircuitOpenError):
        await pending


def test_methods_can_be_decorated(breaker: CircuitBreaker) -> None:
    class Client:
        currency = "USD"

        @breaker
        def charge(self, amount: int) -> str:
            return charge(amount, currency=self.currency)

    assert Client().charge(3) == "3 USD"


async def test_arguments_by_name_reach_function_and_fallback(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 99, clock=clock)

    def make(amount: int, *, currency: str) -> Awaitable[str]:
        return charge_async(amount, currency=currency)

    def make_failing(amount: int, *, currency: str) -> Awaitable[str]:
        return fail_async(amount, currency=currency)

    for func in (charge, charge_async, make):
        reply = breaker.call_with_fallback(func, 3, fallback=fail, currency="USD")
        assert (await reply if inspect.isawaitable(reply) else reply) == "3 USD"
    for func in (fail, fail_async, make_failing):
        reply = breaker.call_with_fallback(func, 3, fallback=charge, currency="USD")
        assert (await reply if inspect.isawaitable(reply) else reply) == "3 USD"
    assert await breaker.call_async(charge_async, 3, currency="USD") == "3 USD"
    for classify in (None, lambda _: Outcome.FAILURE):
        breaker.replace_settings(BreakerSettings(failure_threshold=99, classify_result=classify))
        assert breaker(charge)(3, currency="USD") == "3 USD"
        assert await breaker(charge_async)(3, currency="USD") == "3 USD"
        breaker.disable()
        assert breaker(charge)(3, currency="USD") == "3 USD"
        assert await breaker(charge_async)(3, currency="USD") == "3 USD"
        breaker.automatic()
    reply = breaker.call_with_fallback(charge, 3, fallback=charge_named, currency="USD")
    assert reply == "instead 3 USD"
    reply = breaker.call_with_fallback(charge_async, 3, fallback=charge_named, currency="USD")
    assert await reply == "instead 3 USD"


async def test_arguments_reach_function_and_fallback_if_calls_offer_no_loans(
    breaker: CircuitBreaker,
) -> None:
    def make_failing(amount: int, *, currency: str) -> Awaitable[str]:
        return fail_async(amount, currency=currency)

    breaker._unproven = 0
    breaker._refresh()
    assert await breaker(make_failing, fallback=charge)(3, currency="USD") == "3 USD"
    assert breaker(charge)(3, currency="USD") == "3 USD"
    assert await breaker(charge_async)(3, currency="USD") == "3 USD"


def charge_named(amount: int, *, currency: str) -> str:
    return f"instead {amount} {currency}"


def test_an_async_callable_stays_one(breaker: CircuitBreaker) -> None:
    class Client:
        async def __call__(self) -> None: ...

    assert inspect.iscoroutinefunction(breaker(Client()))
    assert not inspect.iscoroutinefunction(breaker(functools.partial(charge, 3)))


def test_what_cannot_be_called_fails_as_python_says(breaker: CircuitBreaker) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="not callable"):
        breaker.call(wrong)
