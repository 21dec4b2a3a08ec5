"""The context that a handler gets: it notes how the call ends, and ends nothing itself.

On asyncio `abort` is on the wire at once, and the client would have a status that may never be
stored. On sync servers it raises a bare ``Exception`` that looks like a bug (grpc #25187, #36009).
So `abort` is noted, and raised where the handler expects it. The server calls the real one when the
transaction has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.idempotency._records import Trailers

_NUMBERS: dict[object, int] = {
    **{code: code.value[0] for code in grpc.StatusCode},
    **{code.value[0]: code.value[0] for code in grpc.StatusCode},
    None: 0,
}
STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_UNKNOWN = 2


class AbortedError(Exception):
    """What `abort` raises in a handler on a sync server: an ``Exception``, as grpcio's own."""


class AioAbortedError(grpc.aio.AbortError):
    """What `abort` raises in a handler on an asyncio server."""


class Noted:
    """What a handler has said about the end of its call.

    Attributes:
        abortion: the arguments of `abort`; None if it was not called.
    """

    def __init__(self, context: Any) -> None:
        self._real = context
        self._code: object = None
        self._details: str | bytes | None = None
        self._trailers: Any = None
        self.abortion: tuple[Any, str] | None = None

    def __getattr__(self, name: str) -> Any:
        # What only the real context has, or another interceptor's, which need not be one of grpcio.
        return getattr(self._real, name)

    @property
    def noted_code(self) -> int:
        """The number of the status that the call would end with if its handler returned now."""
        number = _NUMBERS.get(self._code, _UNKNOWN)
        # grpcio makes UNKNOWN of an abort with OK.
        return _UNKNOWN if self.abortion is not None and number == 0 else number

    @property
    def noted_details(self) -> bytes:
        """Its text."""
        if isinstance(self._details, bytes):
            return self._details
        return (self._details or "").encode(errors="surrogatepass")

    @property
    def noted_trailers(self) -> Trailers:
        """The trailing metadata."""
        return tuple((key, value) for key, value in self._trailers) if self._trailers else ()

    def set_code(self, code: Any) -> None:
        """Set the status that the call ends with."""
        self._code = code
        self._real.set_code(code)

    def set_details(self, details: str) -> None:
        """Set the status' text."""
        self._details = details
        self._real.set_details(details)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailing metadata."""
        self._trailers = tuple(trailing_metadata or ())
        self._real.set_trailing_metadata(trailing_metadata)

    def note_abort(self, code: Any, details: str) -> None:
        """Note that the call was aborted."""
        self.abortion = code, details
        self._code, self._details = code, details


def _passed_on(name: str) -> Callable[..., Any]:
    def method(self: Noted, *arguments: Any, **named: Any) -> Any:
        return getattr(self._real, name)(*arguments, **named)

    method.__name__ = name
    return method


class Context(Noted, grpc.ServicerContext):
    """The context of a handler on a sync server."""

    is_active = _passed_on("is_active")
    time_remaining = _passed_on("time_remaining")
    cancel = _passed_on("cancel")
    add_callback = _passed_on("add_callback")
    invocation_metadata = _passed_on("invocation_metadata")
    peer = _passed_on("peer")
    peer_identities = _passed_on("peer_identities")
    peer_identity_key = _passed_on("peer_identity_key")
    auth_context = _passed_on("auth_context")
    set_compression = _passed_on("set_compression")
    send_initial_metadata = _passed_on("send_initial_metadata")
    trailing_metadata = _passed_on("trailing_metadata")
    code = _passed_on("code")
    details = _passed_on("details")
    disable_next_message_compression = _passed_on("disable_next_message_compression")

    def abort(self, code: Any, details: str) -> NoReturn:
        """End the call with a status: raises an exception, as grpcio does."""
        self.note_abort(code, details)
        self._real.set_code(code)  # for who asks while the exception is on its way
        self._real.set_details(details)
        raise AbortedError(f"aborted with {code}: {details}")

    def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a status that has trailing metadata."""
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)


class AioContext(Noted, grpc.aio.ServicerContext[Any, Any]):
    """The context of a handler on an asyncio server."""

    read = _passed_on("read")
    write = _passed_on("write")
    invocation_metadata = _passed_on("invocation_metadata")
    peer = _passed_on("peer")
    peer_identities = _passed_on("peer_identities")
    peer_identity_key = _passed_on("peer_identity_key")
    auth_context = _passed_on("auth_context")
    set_compression = _passed_on("set_compression")
    send_initial_metadata = _passed_on("send_initial_metadata")
    trailing_metadata = _passed_on("trailing_metadata")
    code = _passed_on("code")
    details = _passed_on("details")
    disable_next_message_compression = _passed_on("disable_next_message_compression")
    time_remaining = _passed_on("time_remaining")
    add_done_callback = _passed_on("add_done_callback")
    cancelled = _passed_on("cancelled")
    done = _passed_on("done")

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status: raises an exception, as grpcio does."""
        if self.abortion is not None:
            raise grpc.aio.UsageError("Abort already called!")
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self.note_abort(code, details or _text(self._details))
        self._real.set_code(code)  # for who asks while the exception is on its way
        self._real.set_details(details or _text(self._details))
        raise AioAbortedError("Locally aborted.")

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a status that has trailing metadata."""
        await self.abort(status.code, status.details, status.trailing_metadata)


def _text(details: str | bytes | None) -> str:
    return details.decode(errors="surrogatepass") if isinstance(details, bytes) else details or ""
