"""The ways to queue calls: in place of a failure, and without an attempt."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from typing import TYPE_CHECKING, Any, Literal, overload

from fusewire._key_text import key_of_request
from fusewire._sendable import is_valid_metadata
from fusewire._validation import SECONDS, check, invalid, nearest
from fusewire.errors import FusewireError, SettingsError, UnconfirmedError
from fusewire.forwarding._call import call_to_store
from fusewire.forwarding._fallback import ParkFallback, check_key
from fusewire.forwarding._policy import ParkPolicy, check_stored_key
from fusewire.forwarding._store import Entry
from fusewire.operation import KeyEnd, current_operation
from fusewire.parking.internal import SUBMITTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from fusewire.forwarding._call import StoredCall
    from fusewire.forwarding._limits import Limits
    from fusewire.forwarding._park_log import ParkLog
    from fusewire.forwarding._receipt import Receipt
    from fusewire.forwarding._store import CallStore
    from fusewire.operation import KeyClaim

_DIGEST = 32  # hexadecimal digits: 128 bits


class Queueing:
    """What :class:`ParkedCalls` offers to queue calls.

    Args:
        store: where they are stored.
        log: the log of calls that were not parked.
        limits: how much may be queued.
        methods: what may be queued, and how.
    """

    def __init__(
        self,
        store: CallStore,
        log: ParkLog,
        limits: Limits,
        methods: Mapping[str, ParkPolicy],
    ) -> None:
        self._store = store
        self._log = log
        self._limits = limits
        self._methods = dict(methods)

    def fallbacks(self, *methods: str) -> dict[str, ParkFallback]:
        """Make the fallbacks that park calls in place of a failure, for a guard.

        Args:
            methods: for these only; by default for all of `methods=`.

        Raises:
            SettingsError: one of them is not in `methods=`, or its policy has no `reply`.
        """
        made = {}
        for method in methods or self._methods:
            policy = self._policy(method)
            if policy.reply is None:
                raise SettingsError(
                    f"methods[{method!r}] must have a reply= for fallbacks(), because a call that "
                    "is parked in place of a failure needs a response; or name the methods that "
                    "have one: fallbacks(CHARGE), for example"
                )
            made[method] = ParkFallback(self._store, self._log, self._limits, policy)
        return made

    async def submit(
        self,
        method: str,
        request: Any,
        *,
        operation_id: str | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - of the call's attempts, and not of this
        expires_after: float | None = None,
    ) -> Receipt:
        """Queue a call without an attempt. Returns after the broker's confirm.

        Args:
            method: one of `methods=`.
            request: the request message.
            operation_id: the identity of the operation, which the server gets as its
                ``idempotency-key``. By default a new one; within the handler of a message, one that
                is made of the message's and of the request, so that it is the same when the message
                is handled again.
            metadata: what is sent with it, besides the key; no credentials.
            timeout: seconds for one attempt; by default the forwarder's `replay_timeout`.
            expires_after: seconds after which it is not made any more; by default the policy's.

        Raises:
            UnconfirmedError: it may or may not be stored. With ``idempotent=True``, to submit it
                again with the same id is safe.
            NotQueuedError: its policy, or `max_waiting`, does not let it be queued.
            SettingsError: an argument cannot be right.
            FusewireError: it is not stored.
        """
        entry = self._to_submit(method, request, operation_id, metadata, timeout, expires_after)
        with _Identity(entry.call) as call:
            return await self._store.store(entry._replace(call=call))

    def submit_sync(
        self,
        method: str,
        request: Any,
        *,
        operation_id: str | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
        expires_after: float | None = None,
    ) -> Receipt:
        """Do as :meth:`submit`, from a thread that may wait.

        Raises:
            UnconfirmedError: it may or may not be stored. With ``idempotent=True``, to submit it
                again with the same id is safe.
            NotQueuedError: its policy, or `max_waiting`, does not let it be queued.
            SettingsError: an argument cannot be right.
            FusewireError: it is not stored.
        """
        entry = self._to_submit(method, request, operation_id, metadata, timeout, expires_after)
        with _Identity(entry.call) as call:
            return self._store.store_threadsafe(entry._replace(call=call))

    @overload
    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: Literal[True],
        at_most_once: Literal[False] = False,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback: ...

    @overload
    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: Literal[False] = False,
        at_most_once: Literal[True],
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback: ...

    def park(
        self,
        *,
        reply: Callable[[Any, Receipt], Any],
        idempotent: bool = False,
        at_most_once: bool = False,
        metadata: Collection[str] = (),
        expires_after: float | None = None,
        serializer: Callable[[Any], bytes] | None = None,
    ) -> ParkFallback:
        """Make a fallback that stores a call and answers it from the receipt.

        It is for patterns of methods. Where methods have names, `methods=` and :meth:`fallbacks`
        can say more. Exactly one of `idempotent` and `at_most_once` must be true; for them and the
        others, see :class:`ParkPolicy`.

        Raises:
            SettingsError: neither or both of the two are true, or a key may not be stored.
        """
        policy = ParkPolicy(  # type: ignore[call-overload] # it refuses what does not go together
            reply=reply,
            idempotent=idempotent,
            at_most_once=at_most_once,
            metadata=metadata,
            expires_after=expires_after,
            serializer=serializer,
        )
        return ParkFallback(self._store, self._log, self._limits, policy)

    def _policy(self, method: str) -> ParkPolicy:
        try:
            return self._methods[method]
        except KeyError:
            near = nearest(method, self._methods)
            hint = f"did you mean {near!r}?" if near else "only what it names may be queued"
            accepted = "one of methods= of the ParkedCalls"
            raise invalid("method", accepted, method, hint) from None

    def _to_submit(  # noqa: PLR0917 - what submit() is given
        self,
        method: str,
        request: Any,
        operation_id: str | None,
        metadata: Iterable[tuple[str, str | bytes]],
        timeout: float | None,
        expires_after: float | None,
    ) -> Entry:
        policy = self._policy(method)
        if operation_id is not None:
            check_key(operation_id)
        check("timeout", timeout, SECONDS.or_none)
        check("expires_after", expires_after, SECONDS.or_none)
        pairs = tuple((key, value) for key, value in metadata)
        if not is_valid_metadata(pairs):
            raise invalid("metadata", "pairs that gRPC can send", pairs)
        for key, _ in pairs:
            check_stored_key(key.lower())
        breaker = policy.breaker or method
        self._limits.check(policy, request, breaker)
        call = call_to_store(
            policy,
            method,
            request,
            operation_id=operation_id or "",
            metadata=pairs,
            timeout=timeout,
        )
        if expires_after is None:
            expires_after = policy.expires_after
        return Entry(call, breaker, SUBMITTED, expires_after)


class _Identity:
    """The identity of a call that is submitted, for the block that stores it."""

    def __init__(self, call: StoredCall) -> None:
        self._call = call
        self._claim: KeyClaim | None = None

    def __enter__(self) -> StoredCall:
        call = self._call
        if call.operation_id:
            return call
        operation = current_operation()
        if operation is None:
            return dataclasses.replace(call, operation_id=uuid.uuid4().hex)
        digest = hashlib.sha256(call.request).hexdigest()[:_DIGEST]
        self._claim = operation.claim_key(key_of_request(operation.id, call.method, digest))
        return dataclasses.replace(call, operation_id=self._claim.key)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._claim is not None:
            self._claim.end(_end_of_key(kind))


def _end_of_key(error: type[BaseException] | None) -> KeyEnd:
    if error is None:
        return KeyEnd.ANSWERED
    known = issubclass(error, FusewireError) and not issubclass(error, UnconfirmedError)
    return KeyEnd.NO_EFFECT if known else KeyEnd.IN_DOUBT
