"""The demo's configuration: what all of its processes must agree on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from fusewire._validation import check, number_from
from fusewire.breaker import BreakerSettings
from fusewire.demo._metrics import ADDRESS

if TYPE_CHECKING:
    from pathlib import Path

CHARGE: Final = "/fusewire.demo.payments.v1.Payments/Charge"
"""The method that every part of the demo calls, and the name of its breaker."""

LANE: Final = "payments"
"""The lane in which orders wait for it."""

SETTINGS: Final = BreakerSettings(failure_threshold=5, recovery_timeout=2.0, half_open_max_calls=3)
"""Quick, for a demo of a minute; a service would wait longer before it tries again."""

CALL_TIMEOUT: Final = 1.0
"""Seconds that a charge may take."""

THINK_TIME: Final = 0.05
"""Seconds between a charge's commit and its reply. So calls are in flight whenever the server is
killed, and some callers have been charged and get no reply: the worst case."""

CHANNEL_OPTIONS: Final = (
    # After a failed connect a channel waits before it dials again: 1 s, then 1.6 times as much
    # each time, up to two minutes, and fails calls meanwhile. That would outlast the outage.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
)

RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""The policy of gRPC's own example, examples/python/retry of github.com/grpc/grpc. Five is the most
attempts that gRPC makes."""

_SERVICE_CONFIG = {"methodConfig": [{"name": [{}], "retryPolicy": RETRY_POLICY}]}

RETRY_OPTIONS: Final = (("grpc.service_config", json.dumps(_SERVICE_CONFIG)),)
"""Channel options of the baseline that retries, besides those of all channels."""


class Client(StrEnum):
    """Who asks for payments: the client with Fusewire, and the two that it is compared with."""

    FUSEWIRE = "fusewire"
    BARE = "bare"
    RETRYING = "retrying"

    @property
    def prefix(self) -> str:
        """What the references of its payments begin with."""
        return "payment-" if self is Client.FUSEWIRE else f"{self}-payment-"


BASELINES: Final = (Client.BARE, Client.RETRYING)

ORDER: Final = "order-"
"""References of orders begin with it."""

ACCOUNTS: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
"""Who pays, in turn."""

_ORDERS_PER_PAYMENT = 0.25
_RESTART = 0.25  # when the server is restarted, as a share of the time before the outage
_DRAIN_LIMIT = 60.0  # seconds to replay all that is parked, once the server is back


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to run the demo.

    Attributes:
        broker: the address of a RabbitMQ or of an embedded broker's file; None for a file of the
            demo's own.
        rate: payments that each client asks for per second; a quarter as many orders come in.
        healthy: seconds before the outage, and again after it.
        outage: seconds that the server is down.
        drain_limit: seconds after the outage within which everything parked must be replayed.
        keep: a folder for the ledger and the logs, which then stay; None for a temporary one.
        metrics: ``HOST:PORT`` at which the client serves its metrics for Prometheus, and the orders
            theirs at the next port; None to serve none.

    Raises:
        SettingsError: a value is out of range.
    """

    broker: str | None = None
    rate: float = 40.0
    healthy: float = 8.0
    outage: float = 12.0
    drain_limit: float = _DRAIN_LIMIT
    keep: Path | None = None
    metrics: str | None = None

    def __post_init__(self) -> None:
        check("metrics", self.metrics, ADDRESS.or_none)
        for name, least, most in (
            ("rate", 1, 500),
            ("healthy", 1, 3600),
            ("outage", 1, 3600),
            ("drain_limit", 1, 3600),
        ):
            check(name, getattr(self, name), number_from(least, most))

    @property
    def order_rate(self) -> float:
        """Orders published per second."""
        return self.rate * _ORDERS_PER_PAYMENT

    @property
    def restart(self) -> float:
        """Seconds after which the server is restarted, which takes a moment only."""
        return self.healthy * _RESTART

    @property
    def limit(self) -> float:
        """Seconds after which the run is aborted."""
        return 2 * self.healthy + self.outage + 2 * self.drain_limit + 60
