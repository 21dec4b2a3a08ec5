"""Finding and cancelling queued calls by their operation ids."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from fusewire._validation import check_text, invalid
from fusewire.errors import BrokerError
from fusewire.forwarding._found_calls import CancelKind, Cancellation, FoundCall
from fusewire.forwarding._search import not_removed, not_seen
from fusewire.forwarding._server_question import Ask, Said, Wanted, ask, ask_sync
from fusewire.forwarding._server_word import ServerWord

if TYPE_CHECKING:
    from fusewire.forwarding._search import CallSearch, Removal, Seen
    from fusewire.forwarding._store import CallStore

_BEGUN = frozenset(
    {ServerWord.MADE, ServerWord.REFUSED, ServerWord.IN_PROGRESS, ServerWord.IN_DOUBT}
)


class Finding:
    """What :class:`ParkedCalls` offers to find and cancel calls.

    Args:
        store: asks the broker.
        search: searches the queues.
    """

    def __init__(self, store: CallStore, search: CallSearch) -> None:
        self._store = store
        self._search = search

    async def find(
        self,
        method: str,
        operation_id: str,
        *,
        channel: grpc.Channel | grpc.aio.Channel | None = None,
    ) -> FoundCall:
        """Say where a call is, and what its server says of it.

        SQLite can look up a call, which reads the properties of all that is stored; RabbitMQ
        cannot. What is not known is said in the result.

        Args:
            method: ``/package.Service/Method``.
            operation_id: that of its receipt, which is its idempotency key.
            channel: to the call's server, which is then asked by its service
                ``fusewire.idempotency.v1.Operations``, for up to 10 seconds.

        Raises:
            SettingsError: an argument cannot be right.
            FusewireError: this was not entered.
        """
        call = _wanted(method, operation_id, channel)
        try:
            seen = await self._store.ask(partial(self._search.look, call))
        except BrokerError as error:
            seen = not_seen(error)
        if channel is None:
            return _found(seen, None)
        return _found(seen, await ask(channel, Ask.WHAT_BECAME, call, seen.first_sent_ms))

    def find_sync(
        self, method: str, operation_id: str, *, channel: grpc.Channel | None = None
    ) -> FoundCall:
        """Do as :meth:`find`, from a thread that may wait.

        Raises:
            SettingsError: an argument cannot be right.
            FusewireError: this was not entered, or this is the event loop's own thread.
        """
        call = _wanted(method, operation_id, channel, sync=True)
        try:
            seen = self._store.ask_threadsafe(partial(self._search.look, call))
        except BrokerError as error:
            seen = not_seen(error)
        if channel is None:
            return _found(seen, None)
        return _found(seen, ask_sync(channel, Ask.WHAT_BECAME, call, seen.first_sent_ms))

    async def cancel(
        self,
        method: str,
        operation_id: str,
        *,
        channel: grpc.Channel | grpc.aio.Channel | None = None,
    ) -> Cancellation:
        """Keep a call from being made, if it is not too late.

        A call that waits and was never sent is removed, where the broker can look it up. Where
        outcomes are kept, its outcome is ``cancelled``. Any other call is cancelled at its server,
        if there is a `channel`: it stays queued, and the server refuses it when it is sent. What is
        not known is said in the result, and to cancel twice is the same as once.

        Args:
            method: ``/package.Service/Method``.
            operation_id: that of its receipt, which is its idempotency key.
            channel: to the call's server, which is asked as :meth:`find` asks it.

        Raises:
            SettingsError: an argument cannot be right.
            FusewireError: this was not entered.
        """
        call = _wanted(method, operation_id, channel)
        try:
            removal = await self._store.ask(partial(self._search.remove, call))
        except BrokerError as error:
            removal = not_removed(error)
        if channel is None or removal.kind is CancelKind.REMOVED:
            return _cancelled(removal, None)
        said = await ask(channel, Ask.TO_CANCEL, call, removal.seen.first_sent_ms)
        return _cancelled(removal, said)

    def cancel_sync(
        self, method: str, operation_id: str, *, channel: grpc.Channel | None = None
    ) -> Cancellation:
        """Do as :meth:`cancel`, from a thread that may wait.

        Raises:
            SettingsError: an argument cannot be right.
            FusewireError: this was not entered, or this is the event loop's own thread.
        """
        call = _wanted(method, operation_id, channel, sync=True)
        try:
            removal = self._store.ask_threadsafe(partial(self._search.remove, call))
        except BrokerError as error:
            removal = not_removed(error)
        if channel is None or removal.kind is CancelKind.REMOVED:
            return _cancelled(removal, None)
        said = ask_sync(channel, Ask.TO_CANCEL, call, removal.seen.first_sent_ms)
        return _cancelled(removal, said)


def _wanted(method: object, operation_id: str, channel: object, *, sync: bool = False) -> Wanted:
    if not isinstance(method, str) or not method.startswith("/"):
        raise invalid("method", "a path such as /payments.v1.Payments/Charge", method)
    check_text("operation_id", operation_id)
    kinds = (grpc.Channel,) if sync else (grpc.Channel, grpc.aio.Channel)
    if channel is not None and not isinstance(channel, kinds):
        raise invalid("channel", f"a {' or '.join(map(_name, kinds))}", channel)
    return Wanted(method, operation_id)


def _name(kind: type) -> str:
    return "grpc.Channel" if kind is grpc.Channel else "grpc.aio.Channel"


def _found(seen: Seen, said: Said | None) -> FoundCall:
    if said is None:
        return FoundCall(place=seen.place, why=seen.why)
    return FoundCall(place=seen.place, server=said.word, why=_why(seen, said))


def _cancelled(removal: Removal, said: Said | None) -> Cancellation:
    """Return what became of a cancellation, of the server's word where there is one."""
    kind, seen = removal
    if said is None:
        return Cancellation(kind=kind, place=seen.place, why=seen.why)
    if said.word is ServerWord.CANCELLED:
        kind = CancelKind.CANCELLED
    elif said.word in _BEGUN:
        kind = CancelKind.TOO_LATE
    elif said.doubtful:
        kind = CancelKind.UNKNOWN
    settled = kind in {CancelKind.CANCELLED, CancelKind.TOO_LATE}
    why = "" if settled else _why(seen, said) or f"the server's word is: {said.word}"
    return Cancellation(kind=kind, place=seen.place, server=said.word, why=why)


def _why(seen: Seen, said: Said) -> str:
    return "; ".join(filter(None, (seen.why, said.why)))
