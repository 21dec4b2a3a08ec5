"""What users say of a set of methods, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import grpc

from fusewire._validation import (
    COUNT,
    SECONDS,
    SWITCH,
    Rule,
    check,
    check_callable,
    one_of,
)
from fusewire.errors import SettingsError
from fusewire.idempotency._decisions import Effects
from fusewire.idempotency._steps import Terms

FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""Statuses that are answers about the request itself: stored, and given again."""

WEEK = 7 * 86_400.0
"""Seconds."""

MOST_BYTES = 4 * 2**20
"""gRPC's own limit of a message that is received."""

_SHORTEST_KEEP = 3600.0

_STATUS = Rule(
    "a grpc.StatusCode other than OK",
    lambda value: isinstance(value, grpc.StatusCode) and value is not grpc.StatusCode.OK,
)

KEEP = Rule(
    "a finite number of seconds of at least 3600, an hour",
    lambda value: SECONDS.fits(value) and value >= _SHORTEST_KEEP,
)

OnDoubt = Literal["refuse", "rerun"] | Callable[[str, Any, Any], Any]


def make_terms(
    *,
    keep: float,
    wait: float,
    effects: str,
    on_doubt: OnDoubt,
    lease: float,
    required: bool,
    scope: Callable[[Any], str] | None,
    final: Collection[grpc.StatusCode],
    max_reply: int,
) -> Terms:
    """Check what a user has said, and return it as terms.

    Raises:
        SettingsError: something of it cannot be right.
    """
    check("keep", keep, KEEP)
    check("wait", wait, SECONDS)
    check("effects", effects, one_of(*(str(each.value) for each in Effects)))
    check("lease", lease, SECONDS)
    check("required", required, SWITCH)
    check("max_reply", max_reply, COUNT)
    if scope is not None:
        check_callable("scope", scope, "the call's context")
    where = Effects(effects)
    ask = None
    if callable(on_doubt):
        check_callable("on_doubt", on_doubt, "the key", "the request", "the call's context")
        ask = on_doubt
    else:
        check("on_doubt", on_doubt, one_of("refuse", "rerun"))
    if where is Effects.TRANSACTION and on_doubt != "refuse":
        raise SettingsError(
            f"on_doubt must be left out where effects is 'transaction', got {on_doubt!r}: an "
            "effect in the key's own transaction is never in doubt"
        )
    return Terms(
        effects=where,
        keep_ms=round(keep * 1000),
        wait=wait,
        final=_numbers(final),
        most_bytes=max_reply,
        lease_ms=round(lease * 1000),
        rerun=on_doubt == "rerun",
        ask=ask,
    )


def _numbers(final: Collection[grpc.StatusCode]) -> frozenset[int]:
    for code in final:
        check("each of final", code, _STATUS)
    return frozenset(code.value[0] for code in final)
