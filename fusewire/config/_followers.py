"""Consumers that follow files: what they take over while they run, and what needs a restart."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, NamedTuple

from fusewire._locks import make_lock
from fusewire._log_fields import fields
from fusewire.config._resolving import ConsumerConfig
from fusewire.config._showing import show_origin, show_setting
from fusewire.errors import SettingsError
from fusewire.parking import ReplayPolicy, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer

logger = logging.getLogger("fusewire.config")

_LIBRARY = ConsumerConfig(RetryPolicy(), ReplayPolicy())
_SETTINGS = tuple(
    (part, field.name)
    for part, policy in (("retry", RetryPolicy), ("replay", ReplayPolicy))
    for field in dataclasses.fields(policy)
)


class _Change(NamedTuple):
    """A setting of a consumer that files have changed since they were watched first.

    Attributes:
        queue: the consumer's.
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
        first: the policies of consumers when the files were watched first. Consumers are taken to
            be made with these.
    """

    def __init__(self, first: Mapping[str, ConsumerConfig]) -> None:
        self._first = first
        self._now = first
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
            self._give(follower)
            self._judge()

        def end() -> None:
            with self._lock:
                self._followers = [each for each in self._followers if each is not follower]

        return end

    def follow(self, now: Mapping[str, ConsumerConfig]) -> None:
        """Give all of them what files say now, and log what is left for a restart."""
        with self._lock:
            self._now = now
            for follower in self._followers:
                self._give(follower)
            self._judge()

    def _give(self, follower: _Follower) -> None:
        queue = follower.queue
        first, after = (each.get(queue, _LIBRARY) for each in (self._first, self._now))
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
                    extra=fields("config.restart_required", queue=each.queue, setting=each.setting),
                )

    def _could_follow(self, change: _Change) -> bool:
        """Return whether nobody takes over a change that a consumer could."""
        part, _, name = change.setting.partition(".")
        alone = not any(each.queue == change.queue for each in self._followers)
        return alone and part == "replay" and name != "scope"

    def _changes(self) -> Iterator[_Change]:
        """Yield what has changed and is not taken over."""
        for queue in sorted({*self._first, *self._now}):
            first, now = (each.get(queue, _LIBRARY) for each in (self._first, self._now))
            for part, name in _SETTINGS:
                value = getattr(getattr(now, part), name)
                if getattr(getattr(first, part), name) == value:
                    continue
                if part == "retry" or not self._all_have(queue, name, value):
                    setting = f"{part}.{name}"
                    yield _Change(queue, setting, _text(queue, setting, first, now), value)

    def _all_have(self, queue: str, name: str, value: object) -> bool:
        """Return whether there are consumers of `queue`, and all replay by this value."""
        followers = [each for each in self._followers if each.queue == queue]
        return bool(followers) and all(getattr(each.replay, name) == value for each in followers)


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
