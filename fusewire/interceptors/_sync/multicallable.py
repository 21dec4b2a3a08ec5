"""The methods of a guarded sync channel, of all four shapes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import grpc

from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._replays import is_replay, marked_if_valid
from fusewire.interceptors._stage import Stage
from fusewire.interceptors._sync.completed import FallbackReply, RejectedCall
from fusewire.interceptors._sync.completion import settle, watch
from fusewire.interceptors._sync.future import WatchedFuture
from fusewire.interceptors._sync.stream import WatchedStream, is_call
from fusewire.interceptors._sync.watched import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.interceptors._methods import Shape
    from fusewire.interceptors._policy import Policies


def _with_grpcios_signature(make_call: Callable[[Any, Any, dict[str, Any]], Any]) -> Any:
    """Give `make_call`, of a request and the other arguments, the signature of grpcio's methods."""

    def method(  # noqa: PLR0917 - grpcio's order
        self: Any,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - grpcio's own flag
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = {
            "timeout": timeout,
            "metadata": metadata,
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }
        return make_call(self, request, arguments)

    return _named_as(make_call, method)


def _of_iterators(method: Any) -> Any:
    """Name the first argument of `method` as grpcio does where the requests are a stream."""

    def renamed(self: Any, request_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, request_iterator, *args, **kwargs)

    signature = inspect.signature(method)
    itself, request, *others = signature.parameters.values()
    request = request.replace(name="request_iterator")
    _named_as(method, renamed).__signature__ = signature.replace(
        parameters=[itself, request, *others]
    )
    return renamed


def _named_as(function: Any, wrapper: Any) -> Any:
    for name in ("__name__", "__qualname__", "__doc__"):
        setattr(wrapper, name, getattr(function, name))
    return wrapper


class _Method:
    """A method, guarded.

    Args:
        inner: the inner channel's method.
        method: its path.
        policies: those of the channel.
        serialize: makes bytes of a request, if the stub says what does.
    """

    shape: Shape = "unary_unary"

    def __init__(self, inner: Any, method: str, policies: Policies, serialize: Any = None) -> None:
        self._inner = inner
        self._method = method
        self._policies = policies
        self.serialize = serialize


class _UnaryResponse(_Method):
    """A method whose response is one message."""

    @_with_grpcios_signature
    def __call__(self, request: Any, arguments: dict[str, Any]) -> Any:
        """Make the call and wait for its response."""
        answered = self._blocking(self._inner, request, arguments)
        return answered.message if isinstance(answered, FallbackReply) else answered

    @_with_grpcios_signature
    def with_call(self, request: Any, arguments: dict[str, Any]) -> Any:
        """Make the call, wait for its response, and return the call too."""
        answered = self._blocking(self._inner.with_call, request, arguments)
        return (answered.message, answered) if isinstance(answered, FallbackReply) else answered

    @_with_grpcios_signature
    def future(self, request: Any, arguments: dict[str, Any]) -> Any:
        """Make the call and return it at once."""
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return self._inner.future(request, **_marked_if_replay(arguments))
        guarded = GuardedCall.of(policy, arguments["metadata"], arguments["timeout"], request, self)
        refused = guarded.admit()
        if refused is not None:
            rejected = RejectedCall.of(refused)
            if guarded.fallback is None:
                return rejected
            return WatchedFuture(rejected, guarded, Stage.FAILED)
        inner = _start(self._inner.future, guarded, arguments)
        if guarded.fallback is None:
            watch(guarded, inner)
            return inner
        return WatchedFuture(inner, guarded)

    def _blocking(self, call: Any, request: Any, arguments: dict[str, Any]) -> Any:
        """Make a blocking call; return what `call` does, or the fallback's reply."""
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return call(request, **_marked_if_replay(arguments))
        guarded = GuardedCall.of(policy, arguments["metadata"], arguments["timeout"], request, self)
        refused = guarded.admit()
        error: grpc.RpcError
        if refused is not None:
            error = RejectedCall.of(refused)
        else:
            try:
                with guarded.lending():
                    response = call(guarded.request, **_amended(arguments, guarded))
            except grpc.RpcError as failure:
                if not settle(guarded, failure):
                    raise
                error = failure
            except BaseException:
                guarded.release()
                raise
            else:
                guarded.succeed()
                return response
        try:
            reply = answer(guarded, error)
            if reply is None:
                raise error
            guarded.answered(error)
            return reply
        finally:
            guarded.declined()
            del error  # its traceback holds this frame, which would hold it


class _StreamResponse(_Method):
    """A method whose response is a stream."""

    @_with_grpcios_signature
    def __call__(self, request: Any, arguments: dict[str, Any]) -> Any:
        """Make the call and return its response stream."""
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return self._inner(request, **_marked_if_replay(arguments))
        guarded = GuardedCall.of(policy, arguments["metadata"], arguments["timeout"], request, self)
        refused = guarded.admit()
        if refused is not None:
            rejected = RejectedCall.of(refused)
            if guarded.fallback is None:
                return rejected
            return WatchedStream(rejected, guarded, Stage.FAILED)
        inner = _start(self._inner, guarded, arguments)
        if guarded.fallback is None and not policy.until_first_message and is_call(inner):
            watch(guarded, inner)
            return inner
        return WatchedStream(inner, guarded)


class UnaryUnaryMethod(
    _UnaryResponse,
    grpc.UnaryUnaryMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A unary-unary method, guarded."""


class StreamUnaryMethod(
    _UnaryResponse,
    grpc.StreamUnaryMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A stream-unary method, guarded."""

    shape = "stream_unary"
    __call__ = _of_iterators(_UnaryResponse.__call__)
    with_call = _of_iterators(_UnaryResponse.with_call)
    future = _of_iterators(_UnaryResponse.future)


class UnaryStreamMethod(
    _StreamResponse,
    grpc.UnaryStreamMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A unary-stream method, guarded."""

    shape = "unary_stream"


class StreamStreamMethod(
    _StreamResponse,
    grpc.StreamStreamMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A stream-stream method, guarded."""

    shape = "stream_stream"
    __call__ = _of_iterators(_StreamResponse.__call__)


def _start(call: Any, guarded: GuardedCall, arguments: dict[str, Any]) -> Any:
    """Start an inner call that does not block. What it raises, it raises before sending."""
    try:
        with guarded.lending():
            return call(guarded.request, **_amended(arguments, guarded))
    except BaseException:
        guarded.release(sent=False)
        raise


def _marked_if_replay(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that is not guarded."""
    if is_replay():
        arguments["metadata"] = marked_if_valid(arguments["metadata"])
    return arguments


def _amended(arguments: dict[str, Any], guarded: GuardedCall) -> dict[str, Any]:
    """Return the arguments of a call with the changes of its guard."""
    if guarded.metadata is not None:
        arguments["metadata"] = guarded.metadata
    arguments["wait_for_ready"] = guarded.wait_for_ready(arguments["wait_for_ready"])
    return arguments
