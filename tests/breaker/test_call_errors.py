"""Of a failed call's error, its type and status are kept, and nothing else of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import json
import weakref
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import (
    BreakerSettings,
    CallError,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Outcome,
)
from fusewire.errors import SettingsError
from tests.support.call_errors import RPC_LIKE, SECRET, RpcLikeError, fail_with, known
from tests.support.circuits import half_open_circuit, interrupt, open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fusewire.testing import FakeClock


class PaymentError(Exception):
    pass


class _PrivateError(PaymentError):
    pass


class _OwnTimeout(TimeoutError):  # noqa: N818 - a private name
    pass


class _InactiveLikeError(RpcLikeError):
    pass


HERE = "tests.breaker.test_call_errors"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (ConnectionError(SECRET), "ConnectionError", ""),
        (PaymentError(SECRET), f"{HERE}.PaymentError", ""),
        (json.JSONDecodeError(SECRET, "", 0), "json.decoder.JSONDecodeError", ""),
        (RpcLikeError(SECRET), RPC_LIKE, "UNAVAILABLE"),
        (_InactiveLikeError(SECRET), RPC_LIKE, "UNAVAILABLE"),
        (_PrivateError(SECRET), f"{HERE}.PaymentError", ""),
        (_OwnTimeout(SECRET), f"{HERE}._OwnTimeout", ""),
        (ExceptionGroup(SECRET, [RpcLikeError()]), "ExceptionGroup", "UNAVAILABLE"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_an_error_goes_by_its_public_type_and_its_status(
    breaker: CircuitBreaker, error: Exception, kind: str, status: str
) -> None:
    fail_with(breaker, error)
    assert known(breaker) == (kind, status)


def test_grpcs_private_errors_are_called_what_users_catch(breaker: CircuitBreaker) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        call = channel.unary_unary("/shop.Payments/Charge")
        with pytest.raises(grpc.RpcError):
            breaker.call(call, b"", timeout=5)
    assert known(breaker)[0] == "grpc.RpcError"
    assert known(breaker)[1] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_classes_in_private_modules_go_by_their_public_base(breaker: CircuitBreaker) -> None:
    base = type("RemoteError", (Exception,), {"__module__": "shop.errors"})
    hidden = type("HiddenError", (base,), {"__module__": "shop._errors"})
    fail_with(breaker, hidden())
    assert known(breaker) == ("shop.errors.RemoteError", "")
    fail_with(breaker, type("MainError", (Exception,), {"__module__": "__main__"})())
    assert known(breaker) == ("__main__.MainError", "")


def test_a_private_class_whose_public_base_is_another_packages_keeps_its_name(
    breaker: CircuitBreaker,
) -> None:
    fail_with(breaker, type("DeclinedError", (grpc.RpcError,), {"__module__": "shop._errors"})())
    assert known(breaker) == ("shop._errors.DeclinedError", "")


def test_no_class_of_a_private_package_is_public(breaker: CircuitBreaker) -> None:
    base = type("BaseError", (Exception,), {"__module__": "_shop"})
    fail_with(breaker, type("_OwnError", (base,), {"__module__": "_shop"})())
    assert known(breaker) == ("_shop._OwnError", "")


def test_the_status_of_what_an_error_comes_from_is_its_status(breaker: CircuitBreaker) -> None:
    error = PaymentError(SECRET)
    error.__cause__ = RpcLikeError()
    fail_with(breaker, error)
    assert known(breaker) == (f"{HERE}.PaymentError", "UNAVAILABLE")


def test_so_is_that_of_the_error_during_whose_handling_it_was_raised(
    breaker: CircuitBreaker,
) -> None:
    def charge() -> None:
        try:
            raising()
        except RpcLikeError:
            raise PaymentError(SECRET)  # noqa: B904 - as callers do who forget `from`

    with pytest.raises(PaymentError):
        breaker.call(charge)
    assert known(breaker) == (f"{HERE}.PaymentError", "UNAVAILABLE")


def test_an_error_whose_status_cannot_be_asked_for_has_none(breaker: CircuitBreaker) -> None:
    class BrokenError(Exception):
        def code(self) -> object:
            raise RuntimeError

    fail_with(breaker, BrokenError())
    assert known(breaker)[1] == ""


# Every way to call.


def raising() -> None:
    raise RpcLikeError(SECRET)


async def raising_async() -> None:
    raise RpcLikeError(SECRET)


def generating() -> Iterator[int]:
    raise RpcLikeError(SECRET)
    yield 1


async def generating_async() -> AsyncIterator[int]:
    raise RpcLikeError(SECRET)
    yield 1


def by_decorator(breaker: CircuitBreaker) -> None:
    breaker(raising)()


def by_call(breaker: CircuitBreaker) -> None:
    breaker.call(raising)


def by_coroutine(breaker: CircuitBreaker) -> None:
    asyncio.run(breaker(raising_async)())


def by_generator(breaker: CircuitBreaker) -> None:
    list(breaker(generating)())


def by_async_generator(breaker: CircuitBreaker) -> None:
    async def read() -> None:
        async for _ in breaker(generating_async)():
            pass

    asyncio.run(read())


def by_block(breaker: CircuitBreaker) -> None:
    with breaker.acquire():
        raising()


def by_async_block(breaker: CircuitBreaker) -> None:
    async def enter() -> None:
        async with breaker.acquire():
            raising()

    asyncio.run(enter())


def by_nested_calls(breaker: CircuitBreaker) -> None:
    breaker.call(lambda: breaker.call(raising))


def by_call_around_an_ignored_one(breaker: CircuitBreaker) -> None:
    def call() -> None:
        breaker.acquire().release()
        raising()

    breaker.call(call)


def by_failure(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure(error=RpcLikeError(SECRET))


def by_settle(breaker: CircuitBreaker) -> None:
    breaker.acquire().settle(Outcome.FAILURE, error=RpcLikeError(SECRET))


def by_conclude(breaker: CircuitBreaker) -> None:
    breaker.acquire().conclude(Outcome.FAILURE, RpcLikeError(SECRET))


def by_circuit(breaker: CircuitBreaker) -> None:
    breaker.settle(breaker.acquire(), Outcome.FAILURE, None, RpcLikeError(SECRET))


def by_name(breaker: CircuitBreaker) -> None:
    error = CallError(RPC_LIKE, "UNAVAILABLE", SECRET)
    breaker.acquire().failure(error=error)


def by_future(breaker: CircuitBreaker) -> None:
    def failed() -> concurrent.futures.Future[None]:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_exception(RpcLikeError(SECRET))
        return future

    breaker.call(failed)


def by_task(breaker: CircuitBreaker) -> None:
    async def start() -> None:
        task = breaker.call(lambda: asyncio.create_task(raising_async()))
        await asyncio.wait([task])
        task.exception()

    asyncio.run(start())


def by_interruption(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    interrupt(breaker, lambda: permit.failure(error=RpcLikeError(SECRET)))


WAYS = [
    by_decorator,
    by_call,
    by_coroutine,
    by_generator,
    by_async_generator,
    by_block,
    by_async_block,
    by_nested_calls,
    by_call_around_an_ignored_one,
    by_failure,
    by_settle,
    by_conclude,
    by_circuit,
    by_name,
    by_future,
    by_task,
    by_interruption,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("proved", [False, True])
def test_each_way_to_call_names_the_error(
    breaker: CircuitBreaker, way: Callable[[CircuitBreaker], None], *, proved: bool
) -> None:
    if proved:  # healthy calls offer no loans
        breaker._unproven = 0
        breaker._refresh()
    with contextlib.suppress(RpcLikeError):
        way(breaker)
    assert known(breaker) == (RPC_LIKE, "UNAVAILABLE")


def test_an_awaited_grpc_call_names_the_error(breaker: CircuitBreaker) -> None:
    async def charge() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            method = channel.unary_unary("/shop.Payments/Charge")
            with pytest.raises(grpc.RpcError):
                await breaker.call(lambda: method(b"", timeout=5))
            await asyncio.sleep(0)

    asyncio.run(charge())
    assert known(breaker)[0] == "grpc.RpcError"


# Which error it is.


def test_it_is_the_error_of_the_last_failure_that_counted(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    assert known(breaker) == ("", "")
    late = breaker.acquire()
    breaker.acquire().failure(error=TimeoutError())
    breaker.acquire().settle(Outcome.IGNORED, error=OSError())
    breaker.acquire().settle(Outcome.SUCCESS, error=OSError())
    breaker.call(int)
    fail_with(breaker, KeyboardInterrupt())
    assert known(breaker) == ("TimeoutError", "")
    breaker.acquire().failure()  # nobody says of what, and it is not the one before
    assert known(breaker) == ("", "")
    breaker.acquire().failure(error=EOFError())
    assert breaker.state is CircuitState.OPEN
    late.failure(error=OSError())
    assert known(breaker) == ("EOFError", "")
    clock.advance(10)
    for _ in range(2):
        breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED
    assert known(breaker) == ("EOFError", "")


def test_a_result_that_is_a_failure_has_no_error(clock: FakeClock) -> None:
    settings = BreakerSettings(classify_result=lambda _: Outcome.FAILURE)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire().failure(error=OSError())
    breaker.call(int)
    assert known(breaker) == ("", "")


def test_a_failed_probe_names_the_error(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    fail_with(breaker, EOFError())
    assert known(breaker) == ("EOFError", "")


# Nothing else is kept.


def test_the_error_itself_is_not_kept(breaker: CircuitBreaker) -> None:
    error = PaymentError(SECRET)
    fail_with(breaker, error)
    permit = breaker.acquire()
    permit.failure(error=error)
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    gone = weakref.ref(error)
    error.__traceback__ = None
    del error
    gc.collect()
    assert gone() is None
    assert SECRET not in str(breaker.figures()) + str(breaker.snapshot())
    assert SECRET not in breaker._last_error.message


@pytest.mark.parametrize("wrong", [None, 7, b"UNAVAILABLE", grpc.StatusCode.UNAVAILABLE])
def test_what_is_no_string_is_refused(wrong: Any) -> None:
    for given in (("type",), ("status",), ("message",)):
        with pytest.raises(SettingsError, match=f"{given[0]} must be a string, got "):
            CallError(**{"type": "grpc.RpcError", given[0]: wrong})


def test_naming_errors_opens_circuits_as_before(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    assert breaker.figures().counters.failed == 2
