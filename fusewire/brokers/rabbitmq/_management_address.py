"""Where RabbitMQ's management API is, and as whom it is asked."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

from yarl import URL

from fusewire.errors import SettingsError

VARIABLE = "FUSEWIRE_MANAGEMENT_URL"
"""The environment variable that gives the URL where no argument does."""

_NAMED = f"the address of the management API (management=, or {VARIABLE})"
_SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class ManagementAddress:
    """The management API of one RabbitMQ.

    Attributes:
        url: its address, without credentials.
        user: the user that asks.
        password: the user's.
        ssl_context: TLS settings, for ``https://``.
        timeout: seconds that one question may take.
    """

    url: URL
    user: str
    password: str = field(repr=False)
    ssl_context: ssl.SSLContext | None
    timeout: float


def management_address(
    given: str | None, *, amqp: URL, ssl_context: ssl.SSLContext | None, timeout: float
) -> ManagementAddress | None:
    """Return the address that is given, else the one that the environment names, else None.

    Args:
        given: ``http://`` or ``https://``; ``cafile`` in its query names the certificate of the
            authority to trust. Without credentials in it, those of `amqp` are used.
        amqp: the AMQP URL.
        ssl_context: TLS settings for ``https://``; goes before what the query says.
        timeout: seconds that one question may take.

    Raises:
        SettingsError: it is no such URL, or its certificate file cannot be read.
    """
    url = given or os.environ.get(VARIABLE)
    if not url:
        return None
    try:
        parsed = URL(url)
    except ValueError as error:
        raise SettingsError(f"{_NAMED} must be a URL, and cannot be read") from error
    if parsed.scheme not in _SCHEMES or not parsed.host:
        raise SettingsError(
            f"{_NAMED} must begin with http:// or https:// and a host, got {parsed.scheme!r}"
        )
    user, password = parsed.user, parsed.password
    if user is None:
        user, password = amqp.user or "guest", amqp.password or "guest"
    if parsed.scheme == "https":
        ssl_context = ssl_context or _trusting(parsed.query.get("cafile"))
    else:
        ssl_context = None
    shown = parsed.with_user(None).with_query(None)
    return ManagementAddress(shown, user, password or "", ssl_context, timeout)


def _trusting(cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"cafile of {_NAMED} must be a readable file of certificates, got {cafile!r}: {error}"
        ) from error
