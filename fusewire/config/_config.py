"""What files and variables say, once all of it is right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fusewire._validation import check, instance_of, nearest
from fusewire.breaker import BreakerRegistry
from fusewire.config._forwarders import ForwarderConfig  # noqa: TC001 - see fusewire/_public.py
from fusewire.config._layer import FileLayer
from fusewire.config._problems import Place, Problem, Severity
from fusewire.config._resolving import CircuitConfig, ConsumerConfig
from fusewire.config._watching import Watch
from fusewire.errors import SettingsError
from fusewire.parking import ReplayPolicy, RetryPolicy

logger = logging.getLogger("fusewire.config")

_NOWHERE = Place("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings from files and variables, checked as a whole. Made by :func:`load`.

    Attributes:
        defaults: what is said of circuits that neither files nor code name; None for nothing.
        circuits: what is said of each circuit or pattern, by its name.
        consumers: the policies of each consumer that is named, by its queue.
        forwarders: what ``fusewire forward`` does, by queue.
        ready_needs: names of circuits without which a process is not ready, which is an argument of
            :class:`~fusewire.telemetry.health.Health`. A Spring Boot file says them by
            ``allowHealthIndicatorToFail``.
        remarks: warnings and notes about what was read.
        files: the files that were read.
        read_again: reads the same files and variables, and logs nothing.
        asked: queues whose policies :meth:`consumer` has returned. Changes of others need no
            restart of this program.
    """

    defaults: CircuitConfig | None = None
    circuits: Mapping[str, CircuitConfig] = field(default_factory=lambda: MappingProxyType({}))
    consumers: Mapping[str, ConsumerConfig] = field(default_factory=lambda: MappingProxyType({}))
    forwarders: Mapping[str, ForwarderConfig] = field(default_factory=lambda: MappingProxyType({}))
    ready_needs: tuple[str, ...] = ()
    remarks: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()
    read_again: Callable[[], Config] | None = field(default=None, compare=False, repr=False)
    asked: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    def apply(self, registry: BreakerRegistry) -> None:
        """Give the settings to a registry's breakers: those there are, and those there will be.

        State and windows are kept. The settings that an earlier call gave are replaced. A circuit
        that files name, also by a pattern, has all its settings from them, except functions, and
        except exception classes that no file names: those stay code's. `defaults` are for circuits
        of which code says nothing. The log says once for each circuit what changes.

        A mode is set when a circuit is made, and again when it is another one than that of the
        settings before. What was set by hand since stays until then.

        Raises:
            SettingsError: `registry` is no registry.
        """
        check("registry", registry, instance_of(BreakerRegistry))
        registry.overlay(FileLayer(self.defaults, self.circuits))

    def watching(
        self, registry: BreakerRegistry, *, every: float = 5.0, sighup: bool = False
    ) -> Watch:
        """Apply the settings, and apply them again whenever the files change.

        ::

            with config.watching(default_registry()):
                ...

        Args:
            registry: whose breakers get the settings.
            every: seconds between two looks at the files.
            sighup: look at once when the process gets SIGHUP, too. Handlers of that signal that
                are there when the watch is entered are called as well. Not under gunicorn, which
                reloads itself by it.

        Raises:
            SettingsError: an argument cannot be right, or this was not made by :func:`load`. With
                `sighup` also when the watch is entered outside the main thread.
        """
        if self.read_again is None:
            raise SettingsError("only a Config that load() returned can watch its files")
        return Watch(
            self,
            registry,
            every=every,
            sighup=sighup,
            files=self.files,
            read=self.read_again,
        )

    def log_remarks(self, known: Iterable[Problem] = ()) -> None:
        """Log the remarks: warnings at WARNING, notes at INFO.

        Args:
            known: what has been logged. The same at another place is not logged again.
        """
        told = {replace(remark, place=_NOWHERE) for remark in known}
        for remark in self.remarks:
            if replace(remark, place=_NOWHERE) in told:
                continue
            level = logging.WARNING if remark.severity is Severity.WARNING else logging.INFO
            logger.log(level, "%s", remark)

    def consumer(self, queue: str) -> ConsumerConfig:
        """Return the policies of the consumer of `queue`: the library's if no file names it.

        A name that is nearly that of another consumer is logged as a warning. A watch says of the
        queues that were asked for here if a changed value needs a restart.
        """
        self.asked.add(queue)
        known = self.consumers.get(queue)
        if known is not None:
            return known
        near = nearest(queue, self.consumers, cutoff=0.75)
        if near is not None:
            logger.warning(
                "no file has policies for the queue %r, so it has the library's; did you mean %r?",
                queue,
                near,
            )
        return ConsumerConfig(RetryPolicy(), ReplayPolicy())
