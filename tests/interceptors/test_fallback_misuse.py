"""Fallbacks that cannot be right are refused when they are given, or never reach a caller."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.demo.payments.v1 import payments_pb2, payments_pb2_grpc
from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import STYLES, call
from tests.support.grpc_server import ECHO, STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
STATEMENT = "/fusewire.demo.payments.v1.Payments/Statement"


class Store:
    """Something that makes fallbacks, as ParkedCalls does, and is none."""

    def park(self) -> None: ...


async def _coroutine() -> None: ...


def made_sync(fallbacks: Any) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        guard(channel, registry=BreakerRegistry(), fallbacks=fallbacks)


def made_aio(fallbacks: Any) -> None:
    aio_interceptors(registry=BreakerRegistry(), fallbacks=fallbacks)


BOTH = pytest.mark.parametrize("make", [made_sync, made_aio])


@BOTH
@pytest.mark.parametrize(
    ("selector", "wrong", "told"),
    [
        (
            "*",
            Store(),
            r"must be a message .*Store.*; give what its park\(\) returns: park\(reply=",
        ),
        (
            "*",
            payments_pb2.ChargeReply,
            r"got <class .*ChargeReply'>; a class of messages is neither",
        ),
        ("*", lambda: b"", r"must be a function of \(request, error\), got .*, which cannot be"),
        (
            "*",
            lambda request: request,
            r"must be a function of \(request, error\), got .*, which cannot be",
        ),
        (
            "*",
            lambda request, error, more: request,
            r"must be a function of \(request, error\), got .*, which cannot be",
        ),
        (
            CHARGE,
            {"status": "PENDING"},
            r"must be a fusewire\.demo\.payments\.v1\.ChargeReply, got a dict",
        ),
        (CHARGE, "PENDING", "ChargeReply, got a str"),
        (CHARGE, payments_pb2.RefundReply(), "ChargeReply, got a .*RefundReply"),
    ],
)
def test_what_can_be_no_fallback_is_refused(
    make: Callable[[Any], None], selector: str, wrong: Any, told: str
) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        make({selector: wrong})
    assert str(caught.value).startswith(f"fallbacks[{selector!r}]")


@BOTH
def test_a_coroutine_in_place_of_its_function_is_refused(make: Callable[[Any], None]) -> None:
    with pytest.raises(SettingsError, match="give the coroutine function itself"):
        make({"*": _coroutine()})


@BOTH
@pytest.mark.parametrize(
    "fallbacks",
    [
        {CHARGE: payments_pb2.ChargeReply()},
        {CHARGE: b"raw bytes, for channels without stubs"},
        {STATEMENT: [payments_pb2.StatementEntry()]},
        {"*": {"a": "message of a method without protobuf"}},
        {"*": lambda request, error: None, CHARGE: None},
        {"*": lambda *given: given},
        {"*": dict},  # a built-in: what it takes cannot be asked
    ],
)
def test_what_may_be_a_fallback_is_taken(make: Callable[[Any], None], fallbacks: Any) -> None:
    make(fallbacks)


@pytest.fixture
def forced() -> BreakerRegistry:
    registry = BreakerRegistry(BreakerSettings())
    for name in (CHARGE, STATEMENT, ECHO, STREAM):
        registry.get(name).force_open()
    return registry


WRONG_REPLIES = [None, {"status": "PENDING"}, "PENDING", payments_pb2.RefundReply()]


def _answers(reply: Any) -> Any:
    return lambda _request, _error: reply


@pytest.mark.parametrize("reply", WRONG_REPLIES, ids=repr)
@STYLES
def test_a_reply_that_is_none_leaves_the_error_on_a_sync_channel(
    forced: BreakerRegistry, reply: Any, style: str, caplog: pytest.LogCaptureFixture
) -> None:
    bare = grpc.insecure_channel("127.0.0.1:1")
    with guard(bare, registry=forced, fallbacks={"*": _answers(reply)}) as channel:
        charge: Any = payments_pb2_grpc.PaymentsStub(channel).Charge
        with pytest.raises(CircuitOpenError) as caught:
            call(charge, style, payments_pb2.ChargeRequest())
    assert isinstance(caught.value.__cause__, TypeError)
    assert "the fallback of" in caplog.text


@pytest.mark.parametrize("reply", WRONG_REPLIES, ids=repr)
async def test_a_reply_that_is_none_leaves_the_error_on_an_asyncio_channel(
    forced: BreakerRegistry, reply: Any
) -> None:
    interceptors = aio_interceptors(registry=forced, fallbacks={"*": _answers(reply)})
    async with grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors) as channel:
        payments: Any = payments_pb2_grpc.PaymentsStub(channel)
        with pytest.raises(CircuitOpenError) as caught:
            await payments.Charge(payments_pb2.ChargeRequest())
    assert isinstance(caught.value.__cause__, TypeError)


def _one_right_and_one_wrong(_request: Any, _error: Any) -> Iterator[Any]:
    yield payments_pb2.StatementEntry()
    yield {"a": "dict"}


async def _the_same_later(_request: Any, _error: Any) -> AsyncIterator[Any]:
    yield payments_pb2.StatementEntry()
    yield None


STREAMS = [
    [payments_pb2.StatementEntry(), None],
    [payments_pb2.StatementEntry(), payments_pb2.ChargeReply()],
    _one_right_and_one_wrong,
]


@pytest.mark.parametrize("given", STREAMS, ids=["none", "another message", "generator"])
def test_a_streams_fallback_gives_no_message_that_is_none(
    forced: BreakerRegistry, given: Any
) -> None:
    bare = grpc.insecure_channel("127.0.0.1:1")
    with guard(bare, registry=forced, fallbacks={"*": given}) as channel:
        payments: Any = payments_pb2_grpc.PaymentsStub(channel)
        entries = payments.Statement(payments_pb2.StatementRequest())
        assert next(entries) == payments_pb2.StatementEntry()
        with pytest.raises(CircuitOpenError):
            next(entries)


@pytest.mark.parametrize("given", [*STREAMS, _the_same_later])
async def test_an_asyncio_streams_fallback_gives_no_message_that_is_none(
    forced: BreakerRegistry, given: Any
) -> None:
    interceptors = aio_interceptors(registry=forced, fallbacks={"*": given})
    async with grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors) as channel:
        payments: Any = payments_pb2_grpc.PaymentsStub(channel)
        entries = payments.Statement(payments_pb2.StatementRequest())
        assert await entries.read() == payments_pb2.StatementEntry()
        with pytest.raises(CircuitOpenError):
            await entries.read()


def test_a_method_without_protobuf_may_have_any_reply_but_none(
    forced: BreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    reply = {"a": "dict"}
    bare = grpc.insecure_channel("127.0.0.1:1")
    with guard(bare, registry=forced, fallbacks={ECHO: _answers(reply)}) as channel:
        assert channel.unary_unary(ECHO)(b"") == reply
    bare = grpc.insecure_channel("127.0.0.1:1")
    fallbacks = {ECHO: _answers(None)}
    with (
        guard(bare, registry=forced, fallbacks=fallbacks) as channel,
        pytest.raises(CircuitOpenError),
    ):
        channel.unary_unary(ECHO)(b"")
