"""Which broker an address means."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, TypeAlias

from fusewire._validation import invalid
from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from fusewire.brokers.protocol import Broker

BrokerAddress: TypeAlias = "str | os.PathLike[str] | Broker"

_FILE = "sqlite:///relative/file.db or sqlite:////absolute/file.db"
_ACCEPTED = f"amqp://… or amqps://… for RabbitMQ, or {_FILE} or a pathlib.Path for a file"


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
            f"the broker's address must be {_ACCEPTED}, got {address!r}; is a variable not set?"
        )
    if isinstance(address, os.PathLike):
        return SQLiteBroker(_named(os.fspath(address), address))
    if not isinstance(address, str):
        return address
    scheme, separator, rest = address.partition("://")
    match scheme.lower() if separator else "":
        case "amqp" | "amqps":
            return RabbitMQBroker(address)
        case "sqlite":
            return SQLiteBroker(_file(address, rest))
        case _:
            raise invalid("the broker's address", _ACCEPTED, redacted(address))


def redacted(address: str) -> str:
    """Return `address` without the parts that may hold credentials."""
    # Whatever precedes the last "@" is taken for them, and so is a query: an address that cannot be
    # read may hide them anywhere.
    address = re.sub(r"[?#].*", "?…", address, flags=re.DOTALL)
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1…@", address, flags=re.DOTALL)


def _file(address: str, rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host or not slash or not path or path.endswith("/") or "?" in path or "#" in path:
        raise invalid("the broker's address", _FILE, redacted(address))
    return _named(path, redacted(address))


def _named(path: str, given: object) -> str:
    # What SQLite takes for a database in memory, and what is the current folder.
    if path in ("", ".") or path.rpartition("/")[2] == ":memory:":
        accepted = f"{_FILE}, because what is stored must outlive the process"
        raise invalid("the broker's address", accepted, given)
    return path
