"""Texts that users give and that have to travel: in headers, in names of queues, in metadata."""

from __future__ import annotations

from fusewire.errors import SettingsError


def check_text(what: str, value: object) -> str:
    """Return `value` if it is a text that can be stored and sent.

    Args:
        what: the setting's name.
        value: what was given.

    Raises:
        SettingsError: it is no text, is empty, or has characters that UTF-8 has no bytes for.
    """
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{what} must be a text that is not empty, got {value!r:.200}")
    if not is_storable(value):
        raise SettingsError(
            f"{what} must be a text that UTF-8 has bytes for, got {value!r:.200}: it holds half a "
            "surrogate pair, mostly of bytes that were decoded with errors='surrogateescape'"
        )
    return value


def is_storable(text: str) -> bool:
    """Return whether UTF-8 has bytes for `text`, as brokers and gRPC ask for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
