"""Which broker an address means."""

from __future__ import annotations

import os
import re
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeAlias

from fusewire._validation import invalid
from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers.protocol import Broker

BrokerAddress: TypeAlias = "str | os.PathLike[str] | Broker"

ENTRY_POINTS = "fusewire.brokers"
"""The group of entry points that name other brokers, each by the scheme of its addresses."""

_OURS = ("amqp", "amqps", "sqlite")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_FILE = "sqlite:///relative/file.db or sqlite:////absolute/file.db"
_ACCEPTED = f"amqp://… or amqps://… for RabbitMQ, or {_FILE} or a pathlib.Path for a file"


def open_broker(address: BrokerAddress) -> Broker:
    """Return the broker that `address` means, not yet entered.

    Args:
        address: ``amqp://`` or ``amqps://`` and what AMQP addresses have, several nodes of one
            cluster with commas between them; ``sqlite:///`` and a path, with a fourth slash if it
            is absolute; a path object. Any other scheme means the broker that an installed
            distribution names for it, by an entry point of the group ``fusewire.brokers``. A
            broker is returned as it is.

    Raises:
        SettingsError: it means none, or one that cannot be loaded. There is no default: an unset
            variable would put what must not be lost into some folder, and a database in memory ends
            with its process.
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
        case other:
            return _installed(other, address)


def redacted(address: str) -> str:
    """Return `address` without the parts that may hold credentials."""
    # Whatever precedes the last "@" is taken for them, and so is a query: an address that cannot be
    # read may hide them anywhere.
    address = re.sub(r"[?#].*", "?…", address, flags=re.DOTALL)
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1…@", address, flags=re.DOTALL)


def _installed(scheme: str, address: str) -> Broker:
    found = {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        others = ", ".join(f"{name}://…" for name in sorted(found) if name not in _OURS)
        accepted = f"{_ACCEPTED}, or {others}, which are installed besides" if others else _ACCEPTED
        named = _SCHEME.fullmatch(scheme)  # else it may be anything, a password too
        hint = f"no broker of {scheme}:// addresses is installed" if named else ""
        raise invalid("the broker's address", accepted, redacted(address), hint)
    return _loaded(found[scheme])(address)


def _loaded(point: EntryPoint) -> Callable[[str], Broker]:
    try:
        make: Callable[[str], Broker] = point.load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"the broker of {point.name}:// addresses, {point.value}, must be importable, got "
            f"{type(error).__name__}: {error}"
        ) from error
    return make


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
