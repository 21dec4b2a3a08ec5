"""The methods of a guarded sync channel, of all four shapes."""

# The methods do what grpcio says of them, with arguments of the names that it gives them.
# ruff: noqa: FBT001, PLR0917

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._rejection import RejectedCall
from fusewire.interceptors._sync.completion import settle, watch
from fusewire.interceptors._sync.future import FallbackFuture, FallbackReply, answer
from fusewire.interceptors._sync.stream import GuardedStream, is_call

if TYPE_CHECKING:
    from fusewire.interceptors._methods import Shape
    from fusewire.interceptors._policy import Policies


class _Guarded:
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


class _UnaryResponse(_Guarded):
    """A method whose response is one message."""

    def _call(self, request: Any, arguments: dict[str, Any]) -> Any:
        answered = self._blocking(self._inner, request, arguments)
        return answered.message if isinstance(answered, FallbackReply) else answered

    def _with_call(self, request: Any, arguments: dict[str, Any]) -> Any:
        answered = self._blocking(self._inner.with_call, request, arguments)
        return (answered.message, answered) if isinstance(answered, FallbackReply) else answered

    def _future(self, request: Any, arguments: dict[str, Any]) -> Any:
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return self._inner.future(request, **arguments)
        guarded = GuardedCall(policy, arguments["metadata"], arguments["timeout"], request, self)
        request = guarded.request
        refused = guarded.admit()
        if refused is not None:
            rejected = RejectedCall.of(refused)
            if guarded.fallback is None:
                return rejected
            return FallbackFuture(rejected, guarded, request, rejected=True)
        try:
            with guarded.lending():
                inner = self._inner.future(request, **_amended(arguments, guarded))
        except BaseException:
            guarded.release(sent=False)
            raise
        if guarded.fallback is None:
            watch(guarded, inner)
            return inner
        return FallbackFuture(inner, guarded, request)

    def _blocking(self, call: Any, request: Any, arguments: dict[str, Any]) -> Any:
        """Make a blocking call; returns what `call` does, or the fallback's reply."""
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return call(request, **arguments)
        guarded = GuardedCall(policy, arguments["metadata"], arguments["timeout"], request, self)
        request = guarded.request
        refused = guarded.admit()
        error: grpc.RpcError
        if refused is not None:
            error = RejectedCall.of(refused)
        else:
            try:
                with guarded.lending():
                    response = call(request, **_amended(arguments, guarded))
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
            reply = answer(guarded, request, error)
            if reply is None:
                raise error
            guarded.answered(error)
            return reply
        finally:
            guarded.declined()
            del error  # its traceback holds this frame, which would hold it


class _StreamResponse(_Guarded):
    """A method whose response is a stream."""

    def _call(self, request: Any, arguments: dict[str, Any]) -> Any:
        policy = self._policies.of(self._method, self.shape)
        if policy is None:
            return self._inner(request, **arguments)
        guarded = GuardedCall(policy, arguments["metadata"], arguments["timeout"], request, self)
        request = guarded.request
        refused = guarded.admit(timed=policy.streams != "end")
        if refused is not None:
            rejected = RejectedCall.of(refused)
            if guarded.fallback is None:
                return rejected
            return GuardedStream(rejected, guarded, request, rejected=True)
        try:
            with guarded.lending():
                inner = self._inner(request, **_amended(arguments, guarded))
        except BaseException:
            guarded.release(sent=False)
            raise
        if guarded.fallback is None and policy.streams != "first_message" and is_call(inner):
            watch(guarded, inner)
            return inner
        stream = GuardedStream(inner, guarded, request)
        stream.begin()
        return stream


class GuardedUnaryUnary(
    _UnaryResponse,
    grpc.UnaryUnaryMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A unary-unary method, guarded."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            request, _arguments(timeout, metadata, credentials, wait_for_ready, compression)
        )

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._with_call(
            request, _arguments(timeout, metadata, credentials, wait_for_ready, compression)
        )

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._future(
            request, _arguments(timeout, metadata, credentials, wait_for_ready, compression)
        )


class GuardedStreamUnary(
    _UnaryResponse,
    grpc.StreamUnaryMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A stream-unary method, guarded."""

    shape = "stream_unary"

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            request_iterator,
            _arguments(timeout, metadata, credentials, wait_for_ready, compression),
        )

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._with_call(
            request_iterator,
            _arguments(timeout, metadata, credentials, wait_for_ready, compression),
        )

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._future(
            request_iterator,
            _arguments(timeout, metadata, credentials, wait_for_ready, compression),
        )


class GuardedUnaryStream(
    _StreamResponse,
    grpc.UnaryStreamMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A unary-stream method, guarded."""

    shape = "unary_stream"

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            request, _arguments(timeout, metadata, credentials, wait_for_ready, compression)
        )


class GuardedStreamStream(
    _StreamResponse,
    grpc.StreamStreamMultiCallable,  # type: ignore[type-arg] # not subscriptable at run time
):
    """A stream-stream method, guarded."""

    shape = "stream_stream"

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            request_iterator,
            _arguments(timeout, metadata, credentials, wait_for_ready, compression),
        )


def _arguments(
    timeout: float | None,
    metadata: Any,
    credentials: grpc.CallCredentials | None,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> dict[str, Any]:
    return {
        "timeout": timeout,
        "metadata": metadata,
        "credentials": credentials,
        "wait_for_ready": wait_for_ready,
        "compression": compression,
    }


def _amended(arguments: dict[str, Any], guarded: GuardedCall) -> dict[str, Any]:
    """Change the arguments of a call as its guard wants them."""
    if guarded.metadata is not None:
        arguments["metadata"] = guarded.metadata
    arguments["wait_for_ready"] = guarded.wait_for_ready(arguments["wait_for_ready"])
    return arguments
