"""Asking a server's service ``fusewire.idempotency.v1.Operations``."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from fusewire._sendable import is_valid_metadata
from fusewire.errors import FusewireError, SettingsError
from fusewire.forwarding.internal import OF_THE_CALL, ServerWord, word_of
from fusewire.idempotency.v1 import operations_pb2 as v1
from fusewire.idempotency.v1.operations_pb2_grpc import OperationsStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fusewire.forwarding.internal import DoubtfulCall
    from fusewire.idempotency.v1.operations_pb2_grpc import OperationsAsyncStub

_OPTIONS = (("grpc.max_receive_message_length", -1),)
"""A recorded reply comes with its trailers in a message that is larger than it. How large the
server's records may be is the server's setting, and what is asked is one's own server."""

_TRIES = 3
_PAUSE = 0.5  # seconds between two tries

_HOPELESS = {
    grpc.StatusCode.UNIMPLEMENTED: "it has no service fusewire.idempotency.v1.Operations: add it "
    "with fusewire.idempotency.add_operations",
    grpc.StatusCode.UNAUTHENTICATED: "it does not know who asks: give --metadata or a certificate",
}


class CannotAskError(FusewireError):
    """The server cannot be asked about any call. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of PEM, and the name in the server's certificate."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the channel's credentials.

        Raises:
            SettingsError: a certificate without its key, or the other way round.
            OSError: a file cannot be read.
        """
        if (self.certificate is None) is not (self.key is None):
            raise SettingsError("--tls-certificate and --tls-key belong together: give both")
        ca, key, certificate = (
            None if path is None else path.read_bytes()
            for path in (self.ca, self.key, self.certificate)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """A server that is asked.

    Attributes:
        target: where it is.
        tls: how it is reached by TLS; None for a connection in the clear.
        metadata: what goes with each question.
        timeout: seconds that a question may take.
    """

    target: str
    tls: Tls | None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float = 10.0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Asking]:
        """Connect to it.

        Raises:
            SettingsError: its address or the metadata cannot be right.
            CannotAskError: it does not answer.
        """
        if not is_valid_metadata(self.metadata):
            raise SettingsError("--metadata must be keys and values that gRPC can send")
        async with self._channel() as channel:
            try:
                async with asyncio.timeout(self.timeout):
                    await channel.channel_ready()
            except TimeoutError:
                raise CannotAskError(
                    f"{self.target} does not answer within {self.timeout:g} s: check --target and "
                    "the options of TLS"
                ) from None
            yield Asking(self, OperationsStub(channel))

    def _channel(self) -> grpc.aio.Channel:
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, options=_OPTIONS)
        name = self.tls.server_name
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", name)) if name else _OPTIONS
        return grpc.aio.secure_channel(self.target, self.tls.credentials(), options=options)


class Asking:
    """Asks about calls, on one channel."""

    def __init__(self, server: Operations, stub: OperationsAsyncStub) -> None:
        self._server = server
        self._stub = stub

    async def __call__(self, call: DoubtfulCall) -> ServerWord:
        """Return what the server says of a call. It is asked again where that may help.

        Raises:
            CannotAskError: it says that it cannot be asked about any.
        """
        question = v1.QueryRequest(method=call.method, idempotency_key=call.key)
        if (first_sent_ms := call.first_sent_ms) is not None:
            question.first_sent_at.FromMilliseconds(first_sent_ms)
        for last in [False] * (_TRIES - 1) + [True]:
            try:
                operation = await self._stub.Query(
                    question, timeout=self._server.timeout, metadata=self._server.metadata
                )
            except grpc.aio.AioRpcError as error:
                code = error.code()
                if (word := OF_THE_CALL.get(code)) is not None:
                    return word
                if (why := _HOPELESS.get(code)) is not None:
                    raise CannotAskError(f"{self._server.target} cannot be asked: {why}") from None
                if last:
                    return ServerWord.NO_ANSWER
                await asyncio.sleep(_PAUSE)
            else:
                return word_of(operation)
        raise AssertionError("the loop above returns or raises")
