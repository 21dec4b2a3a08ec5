"""Which broker an address means."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, TypeAlias

from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from fusewire.brokers.protocol import Broker

BrokerAddress: TypeAlias = "str | os.PathLike[str] | Broker"

_ACCEPTED = (
    "give amqp://… or amqps://… for RabbitMQ, or sqlite:///relative/file.db, "
    "sqlite:////absolute/file.db or a pathlib.Path for the embedded broker"
)


def open_broker(address: BrokerAddress) -> Broker:
    """Return the broker that `address` means, not yet entered.

    Args:
        address: ``amqp://`` or ``amqps://`` and what AMQP addresses have, several nodes of one
            cluster with commas between them; ``sqlite:///`` and a path, with a fourth slash if it
            is absolute; a path object. A broker is returned as it is.

    Raises:
        SettingsError: it means none. There is no default: an unset variable would put what must
            not be lost into some folder, and a database in memory ends with its process.
    """
    if not isinstance(address, os.PathLike) and not address:  # what an unset variable gives
        raise SettingsError(
            f"broker address {address!r}: it says nowhere; is a variable not set? {_ACCEPTED}"
        )
    if isinstance(address, os.PathLike):
        return SQLiteBroker(_named(os.fspath(address), repr(address)))
    if not isinstance(address, str):
        return address
    scheme, separator, rest = address.partition("://")
    match scheme.lower() if separator else "":
        case "amqp" | "amqps":
            return RabbitMQBroker(address)
        case "sqlite":
            return SQLiteBroker(_file(address, rest))
        case _:
            raise SettingsError(f"broker address {redacted(address)!r}: {_ACCEPTED}")


def redacted(address: str) -> str:
    """Return `address` without the parts that may hold credentials."""
    # Whatever precedes the last "@" is taken for them, and so is a query: an address that cannot be
    # read may hide them anywhere.
    address = re.sub(r"[?#].*", "?…", address, flags=re.DOTALL)
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1…@", address, flags=re.DOTALL)


def _file(address: str, rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host or not slash or not path or path.endswith("/") or "?" in path or "#" in path:
        raise SettingsError(
            f"broker address {redacted(address)!r} names no file: write sqlite:///relative/file.db "
            "or sqlite:////absolute/file.db"
        )
    return _named(path, repr(redacted(address)))


def _named(path: str, given: str) -> str:
    # What SQLite takes for a database in memory, and what is the current folder.
    if path in ("", ".") or path.rpartition("/")[2] == ":memory:":
        raise SettingsError(
            f"broker address {given} names no file, and what is stored has to outlive the process: "
            f"{_ACCEPTED}"
        )
    return path
