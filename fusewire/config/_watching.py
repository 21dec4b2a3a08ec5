"""Applies files again when they change: all of them or nothing."""

from __future__ import annotations

import logging
import os
import queue
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Self, TypeAlias

from fusewire._locks import make_lock, renew_in_child
from fusewire._log_fields import fields
from fusewire._validation import SECONDS, SWITCH, check, instance_of
from fusewire.breaker import BreakerRegistry
from fusewire.config._followers import Followers
from fusewire.config._hangup import HangupHandler, has_hangup
from fusewire.config._hash import hash_of
from fusewire.config._problems import ConfigError
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fusewire.config._config import Config
    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer

logger = logging.getLogger("fusewire.config")

_Print: TypeAlias = tuple[str, int, int, int, int] | None
_MOST_READINGS = 3
"""Readings in a row of files that change meanwhile, before the next look."""


class _Wake(Enum):
    """Why the thread that watches wakes."""

    TIME = auto()
    """It is time for a look."""

    SIGNAL = auto()
    """A signal asks for one."""

    END = auto()
    """Nobody watches any more."""


@dataclass(frozen=True, slots=True)
class ReloadFigures:
    """How watched files stand, as exporters show it.

    Attributes:
        last_successful: whether the files that were read last are applied.
        restart_required: whether something has changed that takes effect only after a restart.
        hash: what is applied, as a hash that is the same wherever the settings are the same.
        reloads: how often other settings have been applied.
        refusals: how often files with problems were refused.
    """

    last_successful: bool
    restart_required: bool
    hash: str
    reloads: int
    refusals: int


class Watch:
    """Watches files, and applies them when they have changed. A context manager.

    Made by :meth:`Config.watching`. A thread looks at the files every few seconds. If one has been
    written, replaced, or swapped by a symlink as Kubernetes does with a ConfigMap, all are read and
    checked. If all is right, the registry gets the new settings in place. Otherwise nothing
    changes, and a warning lists the problems. With `sighup`, that signal wakes the thread.

    Policies of consumers are values that were given to them. A consumer that was added takes over
    other limits of replays. For all else that has changed, a warning says that a restart is needed,
    and `restart_required` is true until the files say again what they said at first.

    Exporters show how it stands: ``exporter.watch(watch)``.

    Attributes:
        config: what is applied.
        reloads: how often other settings have been applied.
        refusals: how often files with problems were refused.
        last_successful: whether the files that were read last are applied.
    """

    def __init__(
        self,
        config: Config,
        registry: BreakerRegistry,
        *,
        every: float,
        sighup: bool,
        files: Sequence[str],
        read: Callable[[], Config],
    ) -> None:
        self._registry = check("registry", registry, instance_of(BreakerRegistry))
        self._every = check("every", every, SECONDS)
        if check("sighup", sighup, SWITCH) and not has_hangup():
            raise SettingsError("sighup must be False, got True: this system has no SIGHUP")
        self._hangup = HangupHandler(lambda: self._wakes.put(_Wake.SIGNAL)) if sighup else None
        self._files = files
        self._read = read
        self._followers = Followers(config)
        self._seen: list[_Print] | None = None
        self._lock = make_lock()
        self._closed = False
        # A handler of a signal may interrupt its own thread in a put(), and put too. An event would
        # wait for itself then.
        self._wakes: queue.SimpleQueue[_Wake] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.config = config
        self._hash = hash_of(config)
        self.reloads = 0
        self.refusals = 0
        self.last_successful = True

    @property
    def restart_required(self) -> bool:
        """Whether something has changed that takes effect only after a restart."""
        return self._followers.restart_required

    def add(self, consumer: ParkingConsumer | ParkedCalls) -> Callable[[], None]:
        """Have `consumer` replay by the limits that files say, now and whenever they change.

        `replay.concurrency`, `rate` and `yields` change in place, as
        :meth:`ParkingConsumer.change_replay <fusewire.ParkingConsumer.change_replay>` says. They
        stay code's if no file says anything of the replays of its queue.

        Returns:
            A function that ends it. Call it when the consumer is not used any more.

        Raises:
            SettingsError: the consumer was added already.
        """
        return self._followers.add(consumer)

    def reload_figures(self) -> ReloadFigures:
        """Return how the files stand. Waits for nothing; safe to call from any thread."""
        return ReloadFigures(
            self.last_successful, self.restart_required, self._hash, self.reloads, self.refusals
        )

    def look(self) -> bool:
        """Look at the files now. Return whether other settings have been applied."""
        with self._lock:
            return self._look()

    def close(self) -> None:
        """Stop watching. What is applied stays."""
        if self._hangup is not None:
            self._hangup.end()
        self._closed = True
        self._wakes.put(_Wake.END)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._hangup is not None:
                self._hangup.begin()
                stack.callback(self._hangup.end)
            self.config.apply(self._registry)
            self._start()
            stack.pop_all()
        renew_in_child(self, Watch._renew)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _renew(self) -> None:
        """Watch in a forked child too, which has no thread of its parent's."""
        self._wakes = queue.SimpleQueue()
        if not self._closed:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="fusewire-config", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (wake := self._wait()) is not _Wake.END:
            try:
                if wake is _Wake.SIGNAL:
                    self._look_because_of_a_signal()
                else:
                    self.look()
            except (Exception, SystemExit):  # a listener's, for example
                logger.exception("files of settings could not be looked at; the next try follows")

    def _wait(self) -> _Wake:
        try:
            return self._wakes.get(timeout=self._every)
        except queue.Empty:
            return _Wake.TIME

    def _look_because_of_a_signal(self) -> None:
        """Read the files even if they look as before, and say so if nothing follows from it."""
        with self._lock:
            self._seen = None
            if not self._look() and self.last_successful:
                logger.info(
                    "files of settings were read again because of SIGHUP, and say what is applied",
                    extra=fields("config.unchanged", count=len(self._files)),
                )

    def _look(self) -> bool:
        for _ in range(_MOST_READINGS):
            prints = [_print_of(file) for file in self._files]
            if prints == self._seen:
                return False
            found = self._try_to_read()
            if prints == [_print_of(file) for file in self._files]:
                self._seen = prints
                return self._take(found)
        return False  # they are still being written: the next look reads them

    def _try_to_read(self) -> Config | ConfigError:
        try:
            return self._read()
        except ConfigError as error:
            return error

    def _take(self, found: Config | ConfigError) -> bool:
        """Apply what was read, unless it has problems or says what is applied already."""
        self.last_successful = not isinstance(found, ConfigError)
        if isinstance(found, ConfigError):
            self.refusals += 1
            logger.warning(
                "files of settings are refused, and nothing changes: %s",
                found,
                extra=fields("config.refused", count=len(found.errors)),
            )
            return False
        if found == self.config:
            return False
        found.log_remarks(known=self.config.remarks)
        self.config, self._hash = found, hash_of(found)
        found.apply(self._registry)
        self.reloads += 1
        logger.info(
            "files of settings are applied again: %d circuits and patterns",
            len(found.circuits),
            extra=fields("config.reloaded", count=len(found.circuits)),
        )
        self._followers.follow(found)
        return True


def _print_of(file: str) -> _Print:
    """Return what changes when a file is written, replaced, or swapped by a symlink above it."""
    path = os.path.realpath(file)
    try:
        status = os.stat(path)  # noqa: PTH116 - of the resolved path, as a text
    except (OSError, ValueError):
        return None
    return path, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
