"""What PostgreSQL's errors mean, whatever the driver."""

from __future__ import annotations

from fusewire.idempotency._store import Trouble

_CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_LOCK_NOT_AVAILABLE = "55P03"

# Connection exceptions, insufficient resources, operator intervention (a shutdown, a crash), and a
# statement whose completion is unknown.
_UNAVAILABLE = ("08", "53", "57P", "40003")


def trouble_of_sqlstate(sqlstate: str | None, *, lost: bool) -> Trouble:
    """Return what an error means.

    Args:
        sqlstate: its SQLSTATE; None if it is none of the server's.
        lost: whether the driver says that there is no connection, or none any more.
    """
    if sqlstate in _CONFLICTS:
        return Trouble.CONFLICT
    if sqlstate == _LOCK_NOT_AVAILABLE:
        return Trouble.KEY_BUSY
    if lost or (sqlstate is not None and sqlstate.startswith(_UNAVAILABLE)):
        return Trouble.UNAVAILABLE
    return Trouble.OTHER


def lock_timeout(wait: float) -> str:
    """Return `wait`, in seconds, as PostgreSQL reads it. Its 0 would be no limit."""
    return f"{max(1, round(wait * 1000))}ms"
