"""Replies: the bytes that are stored are the bytes that are sent, the first time and each later.

Interceptors around ours see messages, on replays too. A message is serialized when it leaves the
server, and a map in it may come out in another order than before. So the bytes go with the message,
and are sent in place of what the serializer makes of it, unless somebody has changed the message.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

_known: ContextVar[tuple[Any, bytes] | None] = ContextVar("fusewire_known_reply", default=None)


class StoredReply(bytes):
    """A stored reply of a class that is not known: sent as it is."""


class Replies:
    """Makes the bytes of replies, and the replies of stored bytes."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Message] | None] = {}

    def to_bytes(
        self, method: str, reply: Any, serialize: Callable[[Any], bytes] | None
    ) -> bytes | None:
        """Return the bytes of a reply, None if they cannot be made.

        Args:
            method: the method's path.
            reply: what the handler returned.
            serialize: the method's serializer; None where a reply is bytes.
        """
        try:
            data = reply if serialize is None else serialize(reply)
        except Exception:  # noqa: BLE001 - grpcio takes any error for the same
            return None
        if not isinstance(data, bytes):
            return None
        if isinstance(reply, Message):
            self._classes[method] = type(reply)
        return data

    def from_bytes(self, method: str, data: bytes, serialize: Callable[[Any], bytes] | None) -> Any:
        """Return a stored reply as the handler's would be.

        The class is that of an earlier reply, else the one that the method's descriptor names.
        """
        if serialize is None:
            return data
        if method not in self._classes:
            self._classes[method] = _class_of_replies(method)
        kind = self._classes[method]
        return StoredReply(data) if kind is None else kind.FromString(data)


def remember(reply: Any, data: bytes) -> None:
    """Have :func:`serializer` send these bytes for this reply, in this thread or task."""
    _known.set((reply, data))


def serializer(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Return a serializer that sends remembered bytes, and otherwise does what `serialize` does."""
    if serialize is None:
        return None

    def send(reply: Any) -> bytes:
        known = _known.get()
        _known.set(None)
        if isinstance(reply, StoredReply):
            return bytes(reply)
        if known is not None and known[0] is reply and _is_unchanged(reply, known[1]):
            return known[1]
        return serialize(reply)

    return send


def _is_unchanged(reply: Any, data: bytes) -> bool:
    return not isinstance(reply, Message) or type(reply).FromString(data) == reply


def _class_of_replies(method: str) -> type[Message] | None:
    name = method.lstrip("/").replace("/", ".")
    try:
        described = descriptor_pool.Default().FindMethodByName(name)
    except KeyError:
        return None
    return message_factory.GetMessageClass(described.output_type)
