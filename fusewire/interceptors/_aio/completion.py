"""Calls of an asyncio channel that a fallback may answer, and the reading of how a call ended."""

# The methods of calls do what grpcio says of them.

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from fusewire.errors import CircuitOpenError
from fusewire.interceptors._call_end import WRITE_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fusewire.interceptors._call import GuardedCall

T = TypeVar("T")

CANCELLED_DETAILS = "Locally cancelled by application!"  # grpcio's own words

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.32  # seconds


def settle(guarded: GuardedCall, call: Any) -> bool:
    """Settle `guarded` by a call that is over; never raises, never waits.

    Returns:
        whether the fallback is to answer in its place.
    """
    try:
        code = _at_once(call.code())
        if code is grpc.StatusCode.OK:
            guarded.succeed()
            return False
        return guarded.fail(code, _at_once(call.details()), _at_once(call.trailing_metadata()))
    except Exception:  # noqa: BLE001 - whatever has no status says nothing
        guarded.release()
        return False


def settle_raised(guarded: GuardedCall, error: BaseException) -> None:
    """Settle `guarded` by what an inner interceptor raised in place of giving a call."""
    if isinstance(error, grpc.aio.AioRpcError) and not isinstance(error, CircuitOpenError):
        guarded.fail(error.code(), error.details(), error.trailing_metadata())
        guarded.declined()  # what an interceptor raises goes to the user as it is
    else:
        # Another guard's rejection, a cancellation, an error of this process.
        guarded.release(sent=not isinstance(error, CircuitOpenError))


def watch(guarded: GuardedCall, call: Any) -> None:
    """Settle `guarded` when `call` is over."""
    try:
        # What grpcio's own calls stand on tells its end without coroutines and in half the steps.
        own = call._cython_call  # noqa: SLF001 - see above; without it, or other than known, below
        own.add_done_callback(functools.partial(_settle_own, guarded, call, own))
    except AttributeError:
        when_over(call, functools.partial(_settle_other, guarded))


def _settle_own(guarded: GuardedCall, call: Any, own: Any) -> None:
    try:
        ok = own.is_ok()
    except Exception:  # noqa: BLE001 - the private side of another grpcio
        ok = False
    if ok:
        guarded.succeed()
    else:
        _settle_other(guarded, call)


def _settle_other(guarded: GuardedCall, call: Any) -> None:
    if may_change(call):
        settle_late(call, functools.partial(settle, guarded))
    else:
        settle(guarded, call)


def may_change(call: Any) -> bool:
    """Tell whether a call that is over may yet come to another status; never raises.

    When a request cannot be written because the server has ended the call, grpcio says that the
    call is over, with a status of its own, and puts the server's in its place when it comes
    (``_write`` in ``grpc/aio/_call.py``, ``_set_status`` in ``_cython/_cygrpc/aio/call.pyx.pxi``).
    1.71 then calls back again, 1.85 does not.
    """
    try:
        return (
            _at_once(call.code()) is grpc.StatusCode.INTERNAL
            and _at_once(call.details()) == WRITE_FAILED
        )
    except Exception:  # noqa: BLE001 - whatever has no status will have none
        return False


def settle_late(call: Any, conclude: Callable[[Any], object]) -> None:
    """Have `conclude` called, once, with a `call` that may change when it no longer does.

    It is called in any case, also when the call is dropped or its loop is closed.
    """
    late = _Late(call, conclude)
    # The task that waits for the one response ends when the server's status is known.
    response = getattr(call, "_call_response", None)
    if isinstance(response, asyncio.Task):
        response.add_done_callback(late)
    else:  # a stream, whose status comes after its messages are read, or another's call
        _look_again(asyncio.get_running_loop(), late, _FIRST_LOOK)


class _Late:
    """What is called once: by the first that calls it, and at the latest when nobody else can."""

    def __init__(self, call: Any, conclude: Callable[[Any], object]) -> None:
        self.call = call
        self._conclude: Callable[[Any], object] | None = conclude

    def __call__(self, _: object = None) -> None:
        conclude, self._conclude = self._conclude, None
        if conclude is not None:
            conclude(self.call)

    def __del__(self) -> None:
        self()


def _look_again(loop: asyncio.AbstractEventLoop, late: _Late, wait: float) -> None:
    if wait > _LAST_LOOK or not may_change(late.call):
        late()
    else:
        loop.call_later(wait, _look_again, loop, late, 2 * wait)


def when_over(call: Any, callback: Callable[[Any], object]) -> None:
    """Call `callback` with `call` when it is over, now if it is."""
    if call.done():
        callback(call)
    else:
        call.add_done_callback(callback)


def cancelled_here(call: Any) -> bool:
    """Tell whether a call that is over was cancelled in this process, and not by its server.

    ``cancelled()`` is true of both; what grpcio's own calls stand on knows, except of a call that
    may change: that is over, so only the task that waits for its response is cancelled.
    """
    response = getattr(call, "_call_response", None)
    if isinstance(response, asyncio.Task) and response.cancelled():
        return True
    try:
        return bool(call._cython_call.is_locally_cancelled())  # noqa: SLF001 - see above
    except AttributeError:  # another interceptor's, or another grpcio's
        return bool(call.cancelled())


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for; a callback cannot await."""
    try:
        coroutine.send(None)
    except StopIteration as over:
        result: T = over.value
        return result
    coroutine.close()
    raise RuntimeError("the call is not over")


def channel_of(call: Any) -> Any:
    """Find the channel of `call`, None for one without.

    Older grpcio (1.71, say) looks at what each task runs when a channel is closed, and raises if it
    is a method of a call that has no ``_channel`` (``grpc/aio/_channel.py``, ``_close``).
    """
    channel = getattr(call, "_channel", None)
    if channel is not None:
        return channel
    return getattr(getattr(call, "_cython_call", None), "_channel", None)
