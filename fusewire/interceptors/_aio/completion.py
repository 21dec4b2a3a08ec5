"""The end of a call of an asyncio channel: when it comes, how it is read, and what it settles."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from fusewire.errors import CircuitOpenError
from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._call_end import WRITE_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fusewire.breaker import Permit
    from fusewire.interceptors._policy import MethodPolicy

T = TypeVar("T")

CANCELLED_DETAILS = "Locally cancelled by application!"  # grpcio's own words

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.32  # seconds


def settle(guarded: GuardedCall, call: Any) -> bool:
    """Settle `guarded` by a call that is over; never raises, never waits.

    Returns:
        Whether the fallback answers in its place.
    """
    try:
        code = _at_once(call.code())
        if code is grpc.StatusCode.OK:
            guarded.succeed()
            return False
        return guarded.fail(code, _at_once(call.details()), _at_once(call.trailing_metadata()))
    except Exception:  # noqa: BLE001 - without a status it is no evidence
        guarded.release()
        return False


def settle_raised(guarded: GuardedCall, error: BaseException) -> None:
    """Settle `guarded` by what an inner interceptor raised instead of returning a call."""
    if isinstance(error, grpc.aio.AioRpcError) and not isinstance(error, CircuitOpenError):
        guarded.fail(error.code(), error.details(), error.trailing_metadata())
        guarded.declined()  # the user gets what an interceptor raises
    else:
        # Another guard's rejection, a cancellation, an error of this process.
        guarded.release(sent=not isinstance(error, CircuitOpenError))


def watch(guarded: GuardedCall, call: Any) -> None:
    """Settle `guarded` when `call` is over."""
    try:
        # The core of grpcio's own calls reports its end without coroutines, in half the steps.
        core = call._cython_call  # noqa: SLF001 - see above; calls without it are handled below
        core.add_done_callback(functools.partial(_settle_at_end, guarded, call, core))
    except AttributeError:
        when_over(call, functools.partial(_settle_at_end, guarded))


def settle_plain_at_end(  # noqa: PLR0917 - all bound by a partial, whose keywords would cost more
    permit: Permit,
    policy: MethodPolicy,
    timeout: float | None,
    began: float,
    failed: list[GuardedCall],
    call: Any,
) -> None:
    """Settle a call that is over and has needed nothing but its permit; perhaps a little later.

    Args:
        permit: the call's.
        policy: how its method is guarded.
        timeout: the user's, in seconds.
        began: when it was sent, by the monotonic clock.
        failed: empty, and kept until the call is over: older grpcio calls back more than once.
        call: the call.
    """
    try:
        ok = call._cython_call.is_ok()  # noqa: SLF001 - see watch
    except Exception:  # noqa: BLE001 - another interceptor's call, or another grpcio's
        ok = False
    if ok and not failed:
        permit.success()
        return
    if not failed:
        failed.append(GuardedCall(policy, timeout, permit=permit, began=began))
    _settle_at_end(failed[0], call)


def _settle_at_end(guarded: GuardedCall, call: Any, core: Any = None) -> None:
    try:
        ok = core is not None and core.is_ok()
    except Exception:  # noqa: BLE001 - another grpcio may differ here
        ok = False
    if ok:
        guarded.succeed()
    elif may_change(call):
        settle_late(call, functools.partial(settle, guarded))
    else:
        settle(guarded, call)


def may_change(call: Any) -> bool:
    """Return whether a call that is over may still get another status; never raises.

    When a request cannot be written because the server has ended the call, grpcio reports that the
    call is over, with a status of its own, and replaces it by the server's when that arrives
    (``_write`` in ``grpc/aio/_call.py``, ``_set_status`` in ``_cython/_cygrpc/aio/call.pyx.pxi``).
    1.71 then calls back again, 1.85 does not.
    """
    try:
        return (
            _at_once(call.code()) is grpc.StatusCode.INTERNAL
            and _at_once(call.details()) == WRITE_FAILED
        )
    except Exception:  # noqa: BLE001 - without a status it never gets one
        return False


def settle_late(call: Any, conclude: Callable[[Any], object]) -> None:
    """Call `conclude` with `call`, once, when the status of `call` no longer changes.

    It is called in any case: at the latest when the call is dropped or its loop is closed.
    """
    late = _Late(call, conclude)
    # The task that waits for a single response ends when the server's status is known.
    response = getattr(call, "_call_response", None)
    if isinstance(response, asyncio.Task):
        response.add_done_callback(late)
    else:  # a stream, whose status comes after its messages are read, or a call of another class
        _look_again(asyncio.get_running_loop(), late, _FIRST_LOOK)


class _Late:
    """Calls `conclude` exactly once; at the latest when collected."""

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
    """Return whether a call that is over was cancelled in this process, and not by its server.

    ``cancelled()`` is true of both. The core of grpcio's own calls knows which it was, unless the
    call's status may change: then only the task that waits for its response is cancelled.
    """
    response = getattr(call, "_call_response", None)
    if isinstance(response, asyncio.Task) and response.cancelled():
        return True
    try:
        return bool(call._cython_call.is_locally_cancelled())  # noqa: SLF001 - see above
    except AttributeError:  # another interceptor's call, or another grpcio's
        return bool(call.cancelled())


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that does not wait; a callback cannot await it."""
    try:
        coroutine.send(None)
    except StopIteration as over:
        result: T = over.value
        return result
    coroutine.close()
    raise RuntimeError("the call is not over")


def channel_of(call: Any) -> Any:
    """Return the channel of `call`; None if it has none.

    When a channel is closed, older grpcio (such as 1.71) looks at what each task runs, and raises
    if that is a method of a call without ``_channel`` (``grpc/aio/_channel.py``, ``_close``).
    """
    channel = getattr(call, "_channel", None)
    if channel is not None:
        return channel
    return getattr(getattr(call, "_cython_call", None), "_channel", None)
