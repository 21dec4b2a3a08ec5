"""Asking a call's server about it, or to cancel it, on a channel to that server."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fusewire._key_text import key_of_id
from fusewire.errors import CircuitOpenError, FusewireError
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._server_word import OF_THE_CALL, ServerWord, word_of
from fusewire.forwarding._transport import ChannelClosedError, transport
from fusewire.operation import without_fallbacks

_SERVICE = "fusewire.idempotency.v1.Operations"

_TIMEOUT = 10.0
"""Seconds that a server has for its answer."""


class Ask(StrEnum):
    """What a server is asked; the value is the method's name."""

    WHAT_BECAME = "Query"
    TO_CANCEL = "Cancel"


class Wanted(NamedTuple):
    """Which call is meant.

    Attributes:
        method: ``/pkg.Service/Method``.
        operation_id: its operation id.
    """

    method: str
    operation_id: str


class Said(NamedTuple):
    """What a server said.

    Attributes:
        word: in a word.
        why: why it said nothing of the call; else empty.
        doubtful: whether it may have done what it was asked, although it did not say so.
    """

    word: ServerWord
    why: str = ""
    doubtful: bool = False


async def ask(
    channel: grpc.Channel | grpc.aio.Channel, what: Ask, call: Wanted, first_sent_ms: int | None
) -> Said:
    """Ask on a channel of either kind. Raises nothing that the server is the reason of.

    Args:
        channel: to the server; its guard applies, and its fallbacks do not.
        what: what is asked.
        call: about which call.
        first_sent_ms: when that was first sent; None if it was not, or nobody knows.
    """
    question = _question(what, call, first_sent_ms)
    try:
        with without_fallbacks():
            return _read(await transport(channel).send(question, (), _TIMEOUT))
    except (grpc.RpcError, FusewireError) as error:
        return _without_answer(error)


def ask_sync(channel: grpc.Channel, what: Ask, call: Wanted, first_sent_ms: int | None) -> Said:
    """Do as :func:`ask`, in this thread."""
    question = _question(what, call, first_sent_ms)
    send: Any = channel.unary_unary(question.method)
    try:
        with without_fallbacks():
            return _read(send(question.request, timeout=_TIMEOUT))
    except (grpc.RpcError, FusewireError, ValueError) as error:  # a ValueError: it is closed
        return _without_answer(error)


def _question(what: Ask, call: Wanted, first_sent_ms: int | None) -> StoredCall:
    # Imported here: most programs ask no server, and the server's half loads with it.
    from fusewire.idempotency.v1 import operations_pb2 as v1  # noqa: PLC0415 - see above

    kind = v1.QueryRequest if what is Ask.WHAT_BECAME else v1.CancelRequest
    request = kind(method=call.method, idempotency_key=key_of_id(call.operation_id))
    if first_sent_ms is not None:
        request.first_sent_at.FromMilliseconds(first_sent_ms)
    return StoredCall(
        operation_id=call.operation_id,
        method=f"/{_SERVICE}/{what.value}",
        request=request.SerializeToString(),
    )


def _read(reply: bytes) -> Said:
    from fusewire.idempotency.v1 import operations_pb2 as v1  # noqa: PLC0415 - as above

    try:
        return Said(word_of(v1.Operation.FromString(reply)))
    except DecodeError:
        why = f"what it answers is no Operation of {_SERVICE}"
        return Said(ServerWord.NO_ANSWER, why, doubtful=True)


def _without_answer(error: Any) -> Said:
    if isinstance(error, CircuitOpenError):
        return Said(ServerWord.NO_ANSWER, str(error))
    if not isinstance(error, grpc.RpcError):  # the channel is closed
        doubtful = isinstance(error, ChannelClosedError) and error.sent
        return Said(ServerWord.NO_ANSWER, str(error), doubtful)
    call: Any = error  # what a call raises is the call, too
    code = call.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        why = f"the server has no service {_SERVICE}: add it with idempotency.add_operations"
        return Said(ServerWord.NO_ANSWER, why)
    word = OF_THE_CALL.get(code, ServerWord.NO_ANSWER)
    why = f"{code.name}: {call.details()}"
    return Said(word, why, doubtful=word is ServerWord.NO_ANSWER)
