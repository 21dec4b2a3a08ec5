"""Keys that encrypt stored calls: which there are, which one writes, and what they are bound to.

AES-256-GCM as of NIST SP 800-38D, with a nonce of 96 random bits for each call. So one key may
write 2**32 calls (section 8.3 there), and is changed long before that.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

from fusewire._validation import SWITCH, check, check_callable, check_text
from fusewire.errors import FusewireError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALGORITHM = "AES-256-GCM"
"""What encrypted calls say that they are encrypted with."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_LENGTH_BYTES = 4
_CHECK_DIGITS = 16


class MissingKeyError(FusewireError):
    """A stored call cannot be read with what this process has been given, and others may read it.

    Attributes:
        key: the id and the check of the key that it needs; None if it is no key that is missing.
    """

    def __init__(self, why: str, key: KeyName | None = None) -> None:
        super().__init__(why)
        self.key = key


class WrongTagError(FusewireError):
    """What was decrypted is not what was encrypted, or is bound to something else."""


class KeyName(NamedTuple):
    """Which key: two keys of one id have different checks, and reveal nothing by them.

    Attributes:
        id: what its owner calls it.
        check: 64 bits of a keyed hash of the id.
    """

    id: str
    check: str


class Encrypted(NamedTuple):
    """What is stored instead of a text.

    Attributes:
        key: the key that it is encrypted with.
        body: the nonce, the encrypted text, and its tag.
    """

    key: KeyName
    body: bytes


class KeyRing:
    """The keys of encrypted calls: all of them read, and one of them writes.

    To change the key that writes, first have every process read the new one, and then have them
    write with it. An old key may go when no call waits that was written with it. A process that
    knows one id by other bytes than those that wrote a call does not take the call for a damaged
    one, but for one whose key it does not have.

    Args:
        keys: each key, 32 random bytes, by its id. Ids are stored with the calls.
        write_with: the id of the key that new calls are encrypted with.

    Raises:
        SettingsError: there is no such key, or one has another length. No message shows a key.
        ModuleNotFoundError: the extra ``encryption`` is not installed.
    """

    __slots__ = ("_keys", "_writer")

    def __init__(self, keys: Mapping[str, bytes], *, write_with: str) -> None:
        cipher = _aes_gcm()
        _check_keys(keys)
        self._keys: dict[KeyName, AESGCM] = {}
        names = {}
        for key_id, key in keys.items():
            names[key_id] = KeyName(key_id, _check_of(key_id, key))
            self._keys[names[key_id]] = cipher(key)
        if write_with not in names:
            raise SettingsError(
                f"write_with must be one of {', '.join(map(repr, names))}, got {write_with!r}"
            )
        self._writer = names[write_with]

    def __repr__(self) -> str:
        ids = ", ".join(repr(name.id) for name in self._keys)
        return f"KeyRing({ids}, write_with={self._writer.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyRing cannot be pickled or copied, because it holds keys")

    def reads(self, key: KeyName) -> bool:
        """Return whether it can read what `key` wrote."""
        return key in self._keys

    def encrypt(self, plain: bytes, bound: Sequence[bytes]) -> Encrypted:
        """Encrypt `plain` with the key that writes, bound to `bound`."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._keys[self._writer]
        return Encrypted(
            self._writer, nonce + cipher.encrypt(nonce, plain, _associated(self._writer, bound))
        )

    def decrypt(self, encrypted: Encrypted, bound: Sequence[bytes]) -> bytes:
        """Return what was encrypted.

        Raises:
            MissingKeyError: its key is not here.
            WrongTagError: the body, or something that it is bound to, is not what it was.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - in the extra

        name, body = encrypted
        cipher = self._keys.get(name)
        if cipher is None:
            same_id = any(each.id == name.id for each in self._keys)
            raise MissingKeyError(
                f"key {name.id!r} is {'another key' if same_id else 'not'} among the keys of this "
                f"process, {self!r}",
                name,
            )
        try:
            return cipher.decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], _associated(name, bound)
            )
        except (InvalidTag, ValueError) as error:  # ValueError: it is too short to have a nonce
            raise WrongTagError(
                "its body, or what it is bound to, was changed after it was encrypted"
            ) from error


LoadKeys: TypeAlias = Callable[[], KeyRing | Awaitable[KeyRing]]


@dataclass(frozen=True, slots=True)
class Encryption:
    """How stored calls are encrypted.

    Their requests and their metadata are; the method, the operation id and the times are not.

    Attributes:
        keys: returns the keys, a function or a coroutine function. It is called on entering, each
            minute, and for a call whose key is not known. A plain function runs in a worker thread.
        accept_plain: whether calls that are not encrypted are made too: for the time after
            encryption was switched on, until those that were stored before are made.

    Raises:
        SettingsError: an argument cannot be right.
        ModuleNotFoundError: the extra ``encryption`` is not installed.
    """

    keys: LoadKeys = field(repr=False)  # a partial function shows what it was given
    accept_plain: bool = False

    def __post_init__(self) -> None:
        _aes_gcm()
        if not callable(self.keys):  # and never the value itself: it holds keys
            raise SettingsError(
                f"keys must be a function that returns a KeyRing, got {_kind(self.keys)}"
            )
        check_callable("keys", self.keys)
        check("accept_plain", self.accept_plain, SWITCH)


def pack(parts: Sequence[bytes]) -> bytes:
    """Put `parts` together so that no other parts give the same bytes."""
    return b"".join(len(part).to_bytes(_LENGTH_BYTES) + part for part in parts)


def unpack(packed: bytes) -> list[bytes]:
    """Return the parts that were put together.

    Raises:
        ValueError: it is nothing that :func:`pack` has made.
    """
    parts, at = [], 0
    while at < len(packed):
        begins = at + _LENGTH_BYTES
        at = begins + int.from_bytes(packed[at:begins])
        if at > len(packed):
            raise ValueError("it ends within a part")
        parts.append(packed[begins:at])
    return parts


def _associated(key: KeyName, bound: Sequence[bytes]) -> bytes:
    return pack([ALGORITHM.encode(), key.id.encode(), key.check.encode(), *bound])


def _check_of(key_id: str, key: bytes) -> str:
    """Return what tells two keys of one id apart. Stored: it stays as it is."""
    text = b"fusewire key check\0" + key_id.encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:_CHECK_DIGITS]


def _check_keys(keys: object) -> None:
    # No message shows a value: it is a key.
    if not isinstance(keys, Mapping) or not keys:
        raise SettingsError(
            f"keys must be a mapping with at least one key by its id, got {_kind(keys)}"
        )
    for key_id, key in keys.items():
        check_text("the id of a key", key_id)
        if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
            raise SettingsError(f"keys[{key_id!r}] must be {_KEY_BYTES} bytes, got {_kind(key)}")


def _kind(value: object) -> str:
    """Say what a value is without showing it."""
    size = f" of {len(value)}" if isinstance(value, bytes | str | Mapping) else ""
    return f"{type(value).__name__}{size}"


def _aes_gcm() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import (  # noqa: PLC0415 - in the extra
            AESGCM,
        )
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ModuleNotFoundError(
            "encryption of stored calls needs cryptography, which is not installed: "
            "pip install 'fusewire[encryption]'",
            name="cryptography",
        ) from error
    return AESGCM
