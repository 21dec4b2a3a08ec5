"""Policies of a consumer: how failed messages are retried, and how parked ones are replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from fusewire._validation import (
    COUNT,
    DELAYS,
    RATE,
    SECONDS,
    WEIGHT,
    check,
    check_fields,
    count_up_to,
    one_of,
)
from fusewire.brokers import DEFAULT_DELAYS, Topology
from fusewire.parking._unrecoverable import DeadOn, unrecoverable

MOST_HELD = 65535
"""Unacknowledged messages that AMQP lets a consumer ask for: its prefetch has 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a message that failed is tried again, and when it is dead.

    A policy is a value: consumers can share one, and ``RetryPolicy(**table)`` makes one from a
    table of a configuration file.

    Attributes:
        max_attempts: failed attempts after which a message is dead. Attempts that fail while the
            circuit is not closed do not count.
        delays: seconds before the second, third, … attempt; the last repeats. From the third
            attempt on, jitter picks that delay or the one below it.
        max_age: seconds after which a message is dead as ``expired``, counted from when it was
            first parked, failed or was postponed; None for no such limit.
        dead_on: exception types, or a function of the exception. Such an exception makes the
            message dead at once, as :class:`Reject` does, because it will never be handled.
            Rejections by a circuit, and failures that no message causes, are not affected.

    Raises:
        SettingsError: a value cannot be right.
    """

    max_attempts: int = 5
    delays: tuple[float, ...] = DEFAULT_DELAYS
    max_age: float | None = None
    dead_on: DeadOn = ()

    def __new__(cls, *_: object, **settings: object) -> Self:
        """Refuse a setting that does not exist, and name the nearest one."""
        check_fields(cls, settings, cls.__dataclass_fields__)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        check("max_attempts", self.max_attempts, COUNT)
        check("delays", self.delays, DELAYS)
        check("max_age", self.max_age, SECONDS.or_none)
        unrecoverable(self.dead_on)
        # A file has lists. A tuple can be hashed, and nobody changes it.
        object.__setattr__(self, "delays", tuple(self.delays))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPolicy:
    """How parked messages are replayed once their circuit admits calls again.

    A policy is a value: consumers can share one, and ``ReplayPolicy(**table)`` makes one from a
    table of a configuration file.

    Attributes:
        concurrency: the most replays in flight of one replica in one lane. How many there are,
            below that, follows from the spare capacity that they find.
        rate: the most replays that begin in a second, of one replica in one lane; None for no such
            limit. They begin one at a time: any period of w seconds sees at most ``rate * w + 1``.
        yields: how readily replays give way to live traffic: the weight of a slow replay against
            one that is not slow, where slow is longer than live calls took before the outage.
            Replays grow in number until about ``1 / (1 + yields)`` of them are slow: 57 % by
            default. 0.5 is eager (67 %): sooner done, and live calls wait longer meanwhile. 1.5 is
            gentle (40 %).
        scope: whose limits these are. ``"replica"``: every replica replays, each within its own.
            ``"cluster"``: one replica at a time replays each lane, so the limits apply to all
            replicas combined, and the others wait to take over. Lanes are created for one or the
            other, and a lane created for the other is refused.

    Raises:
        SettingsError: a value cannot be right.
    """

    concurrency: int = 64
    rate: float | None = None
    yields: float = 0.75
    scope: Literal["replica", "cluster"] = "replica"

    def __new__(cls, *_: object, **settings: object) -> Self:
        """Refuse a setting that does not exist, and name the nearest one."""
        check_fields(cls, settings, cls.__dataclass_fields__)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        check("concurrency", self.concurrency, count_up_to(MOST_HELD, "which is AMQP's limit"))
        check("rate", self.rate, RATE.or_none)
        check("yields", self.yields, WEIGHT)
        check("scope", self.scope, one_of("replica", "cluster"))


def taken_over(current: ReplayPolicy, wanted: ReplayPolicy) -> ReplayPolicy:
    """Return `wanted` as far as a consumer that has `current` takes it over while it runs.

    Its lanes were made for a scope. Where one replica at a time replays, the concurrency is the
    prefetch of a subscription, and who subscribes again goes to the end of those that wait.
    """
    if current.scope == "cluster":
        wanted = replace(wanted, concurrency=current.concurrency)
    return replace(wanted, scope=current.scope)


def queues_of(
    queue: str,
    lanes: tuple[str, ...],
    *,
    retry: RetryPolicy,
    replay: ReplayPolicy,
    exchange: str,
) -> Topology:
    """Return the queues that a consumer with these policies has.

    Raises:
        SettingsError: a name cannot be right.
    """
    return Topology(
        queue,
        lanes,
        retry.delays,
        single=replay.scope == "cluster",
        options={"exchange": exchange},
    )
