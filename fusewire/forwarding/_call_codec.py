"""Between calls and the messages that store them: plain, or encrypted with the keys of now."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from fusewire._background import Background
from fusewire._error_types import error_type
from fusewire._log_fields import fields
from fusewire._validation import is_coroutine_function, name_of
from fusewire.errors import FusewireError, SettingsError
from fusewire.forwarding._call import read_call
from fusewire.forwarding._encrypted_call import (
    decrypt_call,
    encrypt_call,
    is_encrypted,
    seal,
    unseal,
)
from fusewire.forwarding._encryption import KeyRing, MissingKeyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from fusewire.brokers import HeaderValue, Message
    from fusewire.forwarding._call import StoredCall
    from fusewire.forwarding._encryption import Encryption

logger = logging.getLogger("fusewire.forwarding")

_REFRESH = 60.0
"""Seconds between two times that keys are asked for, so that a process that runs gets new ones."""

_PAUSE = 1.0
"""Seconds between two times at least, however many calls need a key that is missing."""


class CallCodec:
    """Writes calls into messages, and reads them.

    Args:
        encryption: how calls are encrypted; None if they are not.
        queue: the queue that they are stored for.
        monotonic: the clock.
    """

    def __init__(
        self,
        encryption: Encryption | None,
        queue: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encryption = encryption
        self._queue = queue
        self._monotonic = monotonic
        self._ring: KeyRing | None = None
        self._asked_at = monotonic()
        self._asking = asyncio.Lock()  # replaced on entering: it belongs to an event loop

    @property
    def encrypts(self) -> bool:
        """Whether calls are encrypted, so that nothing of them may be stored elsewhere."""
        return self._encryption is not None

    def write(self, call: StoredCall, headers: Mapping[str, HeaderValue]) -> Message:
        """Return the message that stores `call`, with `headers` besides its own.

        Raises:
            FusewireError: it is to be encrypted, and there are no keys.
        """
        if self._encryption is None:
            return call.message(self._queue, headers)
        if self._ring is None:
            raise FusewireError("there are no keys yet to encrypt the call with")
        return encrypt_call(call, self._ring, self._queue, headers)

    def read(self, operation_id: str, body: bytes, headers: Mapping[str, Any]) -> StoredCall:
        """Read a stored call.

        Raises:
            UnreadableCallError: it is something else, or was changed.
            MissingKeyError: it cannot be read here and now, and may be somewhere else, or later.
        """
        if is_encrypted(headers):
            return decrypt_call(operation_id, body, headers, self._ring)
        call = read_call(operation_id, body, headers)
        if self._encryption is not None and not self._encryption.accept_plain:
            raise MissingKeyError(
                "the call is not encrypted: give Encryption(accept_plain=True) until those are "
                "made that were stored before"
            )
        return call

    def seal(self, plain: bytes, bound: Sequence[bytes]) -> tuple[bytes, dict[str, HeaderValue]]:
        """Return the body and the headers that store `plain`, encrypted as calls are.

        Args:
            plain: what is stored.
            bound: what it belongs to.

        Raises:
            FusewireError: it is to be encrypted, and there are no keys.
        """
        if self._encryption is None:
            return plain, {}
        if self._ring is None:
            raise FusewireError("there are no keys yet to encrypt the outcome with")
        return seal(plain, bound, self._ring)

    def unseal(self, body: bytes, headers: Mapping[str, Any], bound: Sequence[bytes]) -> bytes:
        """Return what :meth:`seal` has stored.

        Raises:
            UnreadableCallError: it was changed.
            MissingKeyError: it cannot be read here and now, and may be somewhere else, or later.
        """
        if is_encrypted(headers):
            return unseal(body, headers, bound, self._ring)
        if self._encryption is not None and not self._encryption.accept_plain:
            raise MissingKeyError(
                "the outcome is not encrypted: give Encryption(accept_plain=True)"
            )
        return body

    def can_read(self, missing: MissingKeyError) -> bool:
        """Return whether the key that was missing is there now."""
        return self._ring is not None and missing.key is not None and self._ring.reads(missing.key)

    async def open(self) -> None:
        """Ask for the keys, on the event loop that will run.

        Raises:
            SettingsError: what the user's function returns is no KeyRing.
            Exception: whatever that function raises.
        """
        self._asking = asyncio.Lock()
        if self._encryption is not None:
            self._ring = await _ask(self._encryption)
        self._asked_at = self._monotonic()

    async def refresh(self) -> None:
        """Ask for the keys again; never raises, and keeps those of before.

        Many may need a key at once: they are asked for once, and once a second at most.
        """
        began = self._monotonic()
        async with self._asking:
            if self._encryption is None or self._asked_at > began:
                return
            await asyncio.sleep(self._asked_at + _PAUSE - self._monotonic())
            try:
                self._ring = await _ask(self._encryption)
            except Exception as error:  # noqa: BLE001 - whatever the user's function raises
                # Not its text: nobody knows what that quotes.
                logger.warning(
                    "the keys of %r could not be loaded (%s), and those of before are used",
                    self._queue,
                    error_type(type(error)),
                    extra=fields(
                        "keys.not_loaded", queue=self._queue, error_type=error_type(type(error))
                    ),
                )
            self._asked_at = self._monotonic()

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Ask for the keys each minute for the block, if there are any."""
        if self._encryption is None:
            yield
            return
        keeping = Background(self._keep_fresh, name=f"the keys of {self._queue!r}", logger=logger)
        try:
            yield
        finally:
            keeping.cancel()
            await keeping.finish()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            await self.refresh()


async def _ask(encryption: Encryption) -> KeyRing:
    if is_coroutine_function(encryption.keys):
        made = encryption.keys()
    else:
        made = await anyio.to_thread.run_sync(encryption.keys, abandon_on_cancel=True)
    ring = await made if inspect.isawaitable(made) else made
    if not isinstance(ring, KeyRing):
        # Never what it returned: that may be a key.
        raise SettingsError(
            f"{name_of(encryption.keys)} must return a KeyRing, got {type(ring).__name__}"
        )
    return ring
