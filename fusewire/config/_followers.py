"""What follows files that change: limits of replays in place, and all else by a restart."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, NamedTuple

from fusewire._locks import make_lock
from fusewire._log_fields import fields
from fusewire.config._checking import Origin
from fusewire.config._resolving import ConsumerConfig
from fusewire.config._showing import show_origin, show_setting
from fusewire.errors import SettingsError
from fusewire.parking import ReplayPolicy, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusewire.config._config import Config
    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer

logger = logging.getLogger("fusewire.config")

_NOTHING = Origin(None, None)
_LIBRARY = ConsumerConfig(RetryPolicy(), ReplayPolicy())
_SETTINGS = tuple(
    (part, field.name)
    for part, policy in (("retry", RetryPolicy), ("replay", ReplayPolicy))
    for field in dataclasses.fields(policy)
)


class _Change(NamedTuple):
    """A setting that files have changed since they were watched first.

    Attributes:
        queue: the consumer's or the forwarder's; empty for what is neither's.
        setting: such as ``"retry.max_attempts"``.
        text: what it was, what it is, and where that is written.
        value: what it is.
    """

    queue: str
    setting: str
    text: str
    value: object


@dataclasses.dataclass(slots=True, eq=False)
class _Follower:
    consumer: ParkingConsumer | ParkedCalls
    queue: str
    replay: ReplayPolicy | None = None
    """What it replays by; None as long as no file has said anything of that."""
    said: ConsumerConfig | None = None
    """What files said when it took that over."""


class Followers:
    """The consumers that follow files, and what files have changed that needs a restart.

    Args:
        first: what files said when they were watched first. Consumers, forwarders and health are
            taken to be made with that. Only those count whose queue was asked for, or added: one
            file may serve many programs.
    """

    def __init__(self, first: Config) -> None:
        self._first = first
        self._now = first
        self._used: set[str] = set()
        self._lock = make_lock()
        self._followers: list[_Follower] = []
        self._left: tuple[_Change, ...] = ()

    @property
    def restart_required(self) -> bool:
        """Whether something has changed that takes effect only after a restart."""
        return bool(self._left)

    def add(self, consumer: ParkingConsumer | ParkedCalls) -> Callable[[], None]:
        """Give `consumer` the limits of replays that files say, now and whenever they change.

        Returns:
            The function that ends it.

        Raises:
            SettingsError: it follows already.
        """
        follower = _Follower(consumer, consumer.topology.source)
        with self._lock:
            if any(each.consumer is consumer for each in self._followers):
                raise SettingsError(f"{consumer!r} was added already: end that first")
            self._followers.append(follower)
            self._used.add(follower.queue)
            self._give(follower)
            self._judge()

        def end() -> None:
            with self._lock:
                self._followers = [each for each in self._followers if each is not follower]

        return end

    def follow(self, now: Config) -> None:
        """Give all of them what files say now, and log what is left for a restart."""
        with self._lock:
            self._used |= self._now.asked
            self._now = now
            for follower in self._followers:
                self._give(follower)
            self._judge()

    def _give(self, follower: _Follower) -> None:
        queue = follower.queue
        first, after = self._said_of(queue)
        before = follower.said or first
        # A file that says nothing of replays leaves them to code.
        if follower.replay is not None or any(map(_says_replay, (first, after))):
            former = follower.replay or first.replay
            follower.replay = now = follower.consumer.change_replay(after.replay)
            follower.said = after
            changes = [
                f"{name}: {_shown(before, f'replay.{name}')} → "
                f"{_shown(after, f'replay.{name}')}{_where(after, f'replay.{name}')}"
                for part, name in _SETTINGS
                if part == "replay" and getattr(former, name) != getattr(now, name)
            ]
            if changes:
                logger.info(
                    "replays of %r are configured: %s",
                    queue,
                    "; ".join(changes),
                    extra=fields("consumer.configured", queue=queue, count=len(changes)),
                )

    def _judge(self) -> None:
        """Find what is left for a restart, and log what is new of it, or taken over."""
        former, self._left = self._left, tuple(self._changes())
        known = {(each.queue, each.setting, each.value) for each in former}
        for each in self._left:
            if (each.queue, each.setting, each.value) not in known:
                logger.warning(
                    "restart the process%s: %s",
                    ", or give its consumer to Watch.add()" if self._could_follow(each) else "",
                    each.text,
                    extra=fields(
                        "config.restart_required", queue=each.queue or None, setting=each.setting
                    ),
                )

    def _could_follow(self, change: _Change) -> bool:
        """Return whether nobody takes over a change that a consumer could."""
        part, _, name = change.setting.partition(".")
        alone = not any(each.queue == change.queue for each in self._followers)
        return alone and part == "replay" and name != "scope"

    def _changes(self) -> Iterator[_Change]:
        """Yield what has changed and is not taken over."""
        used = self._used | self._first.asked | self._now.asked
        for queue in sorted(used & {*self._first.consumers, *self._now.consumers}):
            first, now = self._said_of(queue)
            for part, name in _SETTINGS:
                value = getattr(getattr(now, part), name)
                if getattr(getattr(first, part), name) == value:
                    continue
                if part == "retry" or not self._all_have(queue, name, value):
                    setting = f"{part}.{name}"
                    yield _Change(queue, setting, _text(queue, setting, first, now), value)

        first_others, others = _others(self._first), _others(self._now)
        for queue, setting in sorted({*first_others, *others}):
            if queue and queue not in used:
                continue
            old, new = (each.get((queue, setting), _NOTHING) for each in (first_others, others))
            if old.value != new.value:
                subject = f"forwarders[{queue!r}].{setting}" if queue else setting
                where = f" ({new})" if new.place else ""
                text = f"{subject} has changed: {show_origin(old)} → {show_origin(new)}{where}"
                yield _Change(queue, setting, text, new.value)

    def _said_of(self, queue: str) -> tuple[ConsumerConfig, ConsumerConfig]:
        """Return what files said of a consumer first, and what they say now."""
        first, now = (each.consumers.get(queue, _LIBRARY) for each in (self._first, self._now))
        return first, now

    def _all_have(self, queue: str, name: str, value: object) -> bool:
        """Return whether there are consumers of `queue`, and all replay by this value."""
        followers = [each for each in self._followers if each.queue == queue]
        return bool(followers) and all(getattr(each.replay, name) == value for each in followers)


def _others(config: Config) -> dict[tuple[str, str], Origin]:
    """Return what else a program is made with: by queue or nothing, and the setting."""
    found = {
        (queue, key): origin
        for queue, forwarder in config.forwarders.items()
        for key, origin in forwarder.origins.items()
    }
    return found | {("", "ready_needs"): Origin(config.ready_needs, None)}


def _says_replay(config: ConsumerConfig) -> bool:
    return any(key.startswith("replay.") for key in config.origins)


def _text(queue: str, setting: str, first: ConsumerConfig, now: ConsumerConfig) -> str:
    return (
        f"consumers[{queue!r}].{setting} has changed: {_shown(first, setting)} → "
        f"{_shown(now, setting)}{_where(now, setting)}"
    )


def _where(config: ConsumerConfig, setting: str) -> str:
    origin = config.origins.get(setting)
    return "" if origin is None else f" ({origin})"


def _shown(config: ConsumerConfig, setting: str) -> str:
    """Return a value as people may see it."""
    origin = config.origins.get(setting)
    if origin is not None:
        return show_origin(origin)
    part, _, name = setting.partition(".")
    return show_setting(getattr(getattr(config, part), name))
