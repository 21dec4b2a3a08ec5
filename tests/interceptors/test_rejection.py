from __future__ import annotations

import copy
import functools
import pickle
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed

from fusewire.errors import CallError, CircuitOpenError
from fusewire.interceptors import AioRejectedCall, RejectedCall
from fusewire.interceptors._done_callbacks import DoneCallbacks
from fusewire.interceptors._retry_info import read_retry_after
from fusewire.interceptors._sync import completed
from tests.support.grpc_server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = pytest.mark.parametrize("kind", [RejectedCall, AioRejectedCall])


def pickled(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - of our own making


GIVEN = ("payments-eu/p.S/M", "open", 12.5, "5 failures in a row")


@BOTH
def test_a_rejection_is_what_users_of_breakers_and_of_grpc_catch(kind: Any) -> None:
    error = kind(*GIVEN)
    assert isinstance(error, CircuitOpenError)
    assert isinstance(error, grpc.RpcError)
    assert (error.name, error.state, error.retry_after, error.reason) == GIVEN
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.initial_metadata() is not None


def test_a_rejection_on_a_sync_channel_is_a_call_and_a_future() -> None:
    assert issubclass(RejectedCall, grpc.Call)
    assert issubclass(RejectedCall, grpc.Future)


def test_a_rejection_on_an_asyncio_channel_is_an_aio_rpc_error() -> None:
    assert issubclass(AioRejectedCall, grpc.aio.AioRpcError)


@BOTH
def test_a_rejections_details_name_the_breaker_and_the_seconds(kind: Any) -> None:
    error = kind(*GIVEN)
    for text in (error.details(), str(error), error.debug_error_string()):
        assert "payments-eu/p.S/M" in text
        assert "12.5 s" in text
    assert "12.5" in repr(error)


@BOTH
def test_a_rejections_trailing_metadata_say_when_to_come_back_in_both_vocabularies(
    kind: Any,
) -> None:
    error = kind(*GIVEN)
    metadata = dict(list(error.trailing_metadata()))
    assert metadata["grpc-retry-pushback-ms"] == "12500"
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    # grpc_status.from_call refuses a status that differs from the call's own.
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToTimedelta().total_seconds() == 12.5


@BOTH
@pytest.mark.parametrize("duplicate", [pickled, copy.copy])
def test_a_rejection_survives_pickling_and_copying(kind: Any, duplicate: Any) -> None:
    error = kind(*GIVEN)
    error.add_trailing_metadata((("parked", "no"),))
    again = duplicate(error)
    assert type(again) is kind
    assert (again.name, again.state, again.retry_after, again.reason) == GIVEN
    assert list(again.trailing_metadata()) == list(error.trailing_metadata())
    assert ("parked", "no") in list(again.trailing_metadata())


def test_a_rejection_behaves_as_a_future_that_is_over() -> None:
    error = RejectedCall(*GIVEN)
    seen: list[Any] = []
    assert error.done()
    error.add_done_callback(seen.append)
    assert seen == [error]
    assert error.add_callback(lambda: seen.append(None)) is False
    assert not error.running()
    assert not error.cancel()
    assert not error.cancelled()
    assert not error.is_active()
    assert error.time_remaining() is None
    assert error.exception() is error
    assert error.traceback() is not None
    with pytest.raises(RejectedCall) as raised:
        error.result(timeout=1)
    assert raised.value is error


def test_done_callbacks_of_a_rejection_come_in_order_and_not_on_the_callers_thread() -> None:
    error = RejectedCall(*GIVEN)
    seen: list[tuple[int, object, bool]] = []
    caller = threading.get_ident()

    def note(number: int, given: object) -> None:
        seen.append((number, given, threading.get_ident() == caller))
        if number == 0:
            raise ValueError("a callback that raises")

    for number in range(3):
        error.add_done_callback(functools.partial(note, number))
    wait_until(lambda: len(seen) == 3, "the callbacks")
    assert seen == [(number, error, False) for number in range(3)]


def test_no_done_callback_is_lost_when_two_threads_add_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RejectedCall(*GIVEN)
    called: list[str] = []
    one_is_made, other_has_added = threading.Event(), threading.Event()

    def add(name: str) -> None:
        error.add_done_callback(lambda _: called.append(name))

    class Raced(DoneCallbacks):
        __slots__ = ()

        def __init__(self) -> None:
            super().__init__()
            if threading.current_thread() is late:
                one_is_made.set()
                assert other_has_added.wait(10)

        def add(self, callback: Callable[[], object]) -> None:
            super().add(callback)
            if threading.current_thread() is not late:
                other_has_added.set()
                late.join(10)

    late = threading.Thread(target=add, args=("late",))
    monkeypatch.setattr(completed, "DoneCallbacks", Raced)
    late.start()
    assert one_is_made.wait(10)
    add("early")
    wait_until(lambda: sorted(called) == ["early", "late"], "both callbacks")


def test_a_rejection_that_is_caught_says_its_status_whatever_was_guarded() -> None:
    error = CircuitOpenError(*GIVEN)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, str(error))


@BOTH
@pytest.mark.parametrize("duplicate", [pickled, copy.copy, lambda error: error])
def test_a_rejection_has_the_last_errors_type_and_status(kind: Any, duplicate: Any) -> None:
    refused = CircuitOpenError(*GIVEN, CallError("grpc.RpcError", "UNAVAILABLE", "a secret"))
    error = kind.of(refused)
    error.add_trailing_metadata((("parked", "no"),))
    error = duplicate(error)
    assert (error.error_type, error.error_status) == ("grpc.RpcError", "UNAVAILABLE")
    assert ("parked", "no") in list(error.trailing_metadata())
    assert "secret" not in repr(vars(error)) + str(error)
    bare = duplicate(kind(*GIVEN))
    assert (bare.error_type, bare.error_status) == ("", "")


@BOTH
def test_a_rejection_of_a_circuit_that_stays_open_says_not_to_retry(kind: Any) -> None:
    error = kind("b", "forced_open", 30.0, "by hand")
    assert dict(list(error.trailing_metadata()))["grpc-retry-pushback-ms"] == "-1"
    assert error.details() == "circuit 'b' is forced_open (by hand) until set back"
    assert read_retry_after(error.trailing_metadata()) is None
