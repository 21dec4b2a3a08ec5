"""The nodes that an address names: one, or several of one cluster."""

from __future__ import annotations

import re

from yarl import URL

from fusewire._validation import invalid
from fusewire.errors import SettingsError

_SCHEMES = ("amqp://", "amqps://")
_HEARTBEAT = 15  # seconds; a dead peer is noticed after about two of them


def addresses(address: str) -> tuple[URL, ...]:
    """Return the URLs in `address`: one, or several with commas between them.

    Raises:
        SettingsError: one is no AMQP URL, or their virtual hosts differ.
    """
    # Before a scheme only: a password may hold a comma.
    found = tuple(_parse(url) for url in re.split(r"\s*,\s*(?=amqps?://)", address.strip()))
    if len({virtual_host(url) for url in found}) > 1:
        names = sorted({virtual_host(url) for url in found})
        raise SettingsError(
            "the addresses of RabbitMQ must be nodes of one cluster with the same virtual host in "
            f"each, got the virtual hosts {', '.join(map(repr, names))}"
        )
    return found


def virtual_host(url: URL) -> str:
    """Return the virtual host's name, as aiormq reads it of the address."""
    return url.path[1:].replace("%2F", "/") or "/"


def shown(url: URL) -> str:
    """Return the address without credentials, for messages."""
    return str(url.with_user(None).with_query(None))


def _parse(url: str) -> URL:
    if not url.startswith(_SCHEMES):
        scheme = url.split(":", maxsplit=1)[0]
        raise invalid("the scheme of a RabbitMQ address", "amqp:// or amqps://", scheme)
    try:
        parsed = URL(url)
    except ValueError as error:
        raise SettingsError("the address of RabbitMQ must be a URL, and cannot be read") from error
    if not parsed.host:
        raise SettingsError("the address of RabbitMQ must name a host")
    if "heartbeat" in parsed.query:
        return parsed
    return parsed.update_query(heartbeat=_HEARTBEAT)
