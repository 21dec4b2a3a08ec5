"""When a server asks to be called again: reading its hints, and writing our own.

Two vocabularies are in use: ``grpc-retry-pushback-ms`` of gRPC's retry design (A6), and
``google.rpc.RetryInfo`` within the ``google.rpc.Status`` of ``grpc-status-details-bin``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError

# googleapis-common-protos has .pyi files but no py.typed marker.
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable

PUSHBACK = "grpc-retry-pushback-ms"
STATUS_DETAILS = "grpc-status-details-bin"

_UNAVAILABLE = 14  # google.rpc.Code.UNAVAILABLE, the same number as grpc.StatusCode's
_LONGEST = 315_576_000_000.0  # seconds; the largest value of google.protobuf.Duration


def read_retry_after(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Return the seconds after which a server asked to be called again; None if it did not.

    Of two hints the longer one counts. A pushback that is negative or not a number means "do not
    retry" and is no hint, and neither is anything that cannot be read.

    Args:
        metadata: the trailing metadata of a call.
    """
    delays: list[float] = []
    for key, value in metadata:
        if key == PUSHBACK:
            delays.extend(_read_pushback(value))
        elif key == STATUS_DETAILS and isinstance(value, bytes):
            delays.extend(_read_retry_info(value))
    return max(delays, default=None)


def write_retry_after(retry_after: float, message: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return trailing metadata that asks, in both forms, to be called after `retry_after` seconds.

    For infinity it asks not to retry, and has no RetryInfo.
    """
    status = status_pb2.Status(code=_UNAVAILABLE, message=message)
    if math.isfinite(retry_after):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(min(max(retry_after, 0.0), _LONGEST) * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        pushback = str(math.ceil(max(retry_after, 0.0) * 1e3))
    else:
        pushback = "-1"
    return ((PUSHBACK, pushback), (STATUS_DETAILS, status.SerializeToString()))


def _read_pushback(value: str | bytes) -> list[float]:
    try:
        seconds = int(value) / 1e3
    except (ValueError, OverflowError):  # no number, or one beyond what a float holds
        return []
    return [seconds] if seconds >= 0 else []


def _read_retry_info(value: bytes) -> list[float]:
    try:
        status = status_pb2.Status.FromString(value)
        delays = []
        for detail in status.details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                delays.append(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        return []
    return [delay for delay in delays if delay >= 0]
