"""When a circuit opens, for how long, and how it closes again; presets to start from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from fusewire._validation import (
    COUNT,
    EXCEPTIONS,
    GROWTH,
    JITTER,
    PLAIN_FUNCTION,
    SECONDS,
    SHARE,
    SWITCH,
    Rule,
    check,
    check_fields,
    invalid,
    nearest,
)
from fusewire.breaker._states import Outcome  # noqa: TC001 - see fusewire/_public.py
from fusewire.errors import SettingsError

logger = logging.getLogger("fusewire.breaker")

MAX_LIKELY_SECONDS = 3600.0
"""A longer time is accepted with a warning, because it looks like milliseconds."""

LIKE_MILLISECONDS = (
    "recovery_timeout",
    "slow_call_duration",
    "max_wait",
    "probe_lease",
    "ramp_duration",
)

DEFAULT_MAX_OPEN_TIME = 300.0
"""Seconds that a circuit stays open at most, unless settings say otherwise. A server's hint or a
growing open time should not outlast an outage by much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """How a circuit breaker behaves. Code, files and the registry use the same names.

    One criterion that is met opens the circuit. ``None`` switches a criterion off.

    Attributes:
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds that the circuit stays open before it lets probes through.
        half_open_max_calls: probes in flight at most, and successful probes needed to close it.
        expected_exceptions: exceptions that count as failures. Others say nothing about the
            dependency. Cancellation does not count, whatever is named here, except as `max_wait`
            says. An exception group is classified by the exceptions in it.
        ignored_exceptions: exceptions that say nothing about the dependency, even if expected.
        classify_exception: called first with an exception. If it returns ``None``, the two settings
            above decide.
        classify_result: called with a result. Without it, every result is a success.
        window_calls: the rates are computed from this many of the latest calls.
        window_seconds: the rates are computed from the calls of this many seconds, which are
            counted in twentieths.
        minimum_calls: calls in the window before a rate can open the circuit.
        failure_rate_threshold: share of failures in the window, above 0 and up to 1, that opens it.
        slow_call_rate_threshold: share of slow calls in the window that opens it. While it is set,
            a slow probe counts as failed.
        slow_call_duration: seconds. A call that takes longer is slow.
        max_wait: seconds. A call that is cancelled after this time is a failure, because
            ``asyncio.wait_for`` turns a dependency that hangs into a cancellation. ``None``: never.
            For a stream it is the time that its reader waits for one item.
        open_on_hanging: count calls that run for longer than `slow_call_duration` as slow before
            they end.
        probe_lease: seconds after which a probe that was never settled makes room for another, and
            a hanging call is no longer counted.
        recovery_timeout_growth: the open time is multiplied by this each time a probe fails.
        recovery_timeout_max: seconds that the circuit stays open at most, even if the dependency
            asks for more. ``None`` is 300 s, or `recovery_timeout` if that is longer.
        recovery_timeout_jitter: share of the open time, from 0 and below 1, that is randomly taken
            off at most.
        ramp_duration: seconds after closing in which the share of admitted calls grows from none to
            all. ``None`` admits all at once.
        log_messages: whether the log shows the text of the last error when the circuit opens. Such
            a text may hold what must not be logged.

    Raises:
        SettingsError: a value is not valid. The message names it and what would be accepted.
    """

    failure_threshold: int | None = 5
    recovery_timeout: float = 30.0
    half_open_max_calls: int = 3
    expected_exceptions: tuple[type[BaseException], ...] = (Exception,)
    ignored_exceptions: tuple[type[BaseException], ...] = ()
    classify_exception: Callable[[BaseException], Outcome | None] | None = None
    classify_result: Callable[[Any], Outcome] | None = None
    window_calls: int | None = None
    window_seconds: float | None = None
    minimum_calls: int = 10
    failure_rate_threshold: float | None = None
    slow_call_rate_threshold: float | None = None
    slow_call_duration: float | None = None
    max_wait: float | None = None
    open_on_hanging: bool = False
    probe_lease: float = 60.0
    recovery_timeout_growth: float = 1.0
    recovery_timeout_max: float | None = None
    recovery_timeout_jitter: float = 0.0
    ramp_duration: float | None = None
    log_messages: bool = False

    def __new__(cls, *_: object, **settings: object) -> Self:
        """Refuse an unknown setting, and name the nearest one."""
        check_fields(cls, settings, cls.__dataclass_fields__)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Refuse values that are not valid, alone or in combination."""
        for setting, rule, default in _CHECKS:
            value = getattr(self, setting)
            if value is not default and not rule.fits(value):
                check(setting, value, rule)  # raises
        for setting, accepted in conflicts(self):
            raise invalid(setting, accepted, getattr(self, setting))
        for setting in LIKE_MILLISECONDS:
            seconds = getattr(self, setting)
            if looks_like_milliseconds(setting, seconds):
                logger.warning(
                    "%s is %r seconds, which is more than an hour: if milliseconds were meant, "
                    "write %r",
                    setting,
                    seconds,
                    seconds / 1000,
                )

    @property
    def max_open_time(self) -> float:
        """Seconds that the circuit stays open at most."""
        if self.recovery_timeout_max is not None:
            return self.recovery_timeout_max
        return max(self.recovery_timeout, DEFAULT_MAX_OPEN_TIME)


def conflicts(settings: object) -> Iterator[tuple[str, str]]:
    """Yield each setting that does not fit the others, and what it must be.

    Args:
        settings: has the settings as attributes, each of which is valid alone.
    """
    return (
        (setting, accepted) for broken, setting, accepted in _rules_of_several(settings) if broken
    )


def _rules_of_several(settings: Any) -> Iterator[tuple[bool, str, str]]:
    calls, slow = settings.window_calls, settings.slow_call_duration
    no_window = calls is None and settings.window_seconds is None
    yield (
        calls is not None and settings.window_seconds is not None,
        "window_seconds",
        "None while window_calls is set",
    )
    yield (
        calls is not None and settings.minimum_calls > calls,
        "minimum_calls",
        f"at most window_calls ({calls})",
    )
    rates = (settings.failure_rate_threshold, settings.slow_call_rate_threshold)
    yield (
        settings.failure_threshold is None and rates == (None, None),
        "failure_threshold",
        "a number while no rate has a threshold, because nothing would open the circuit",
    )
    for setting in ("failure_rate_threshold", "slow_call_rate_threshold"):
        yield (
            no_window and getattr(settings, setting) is not None,
            setting,
            "None, or window_calls or window_seconds be set",
        )
    yield (
        settings.slow_call_rate_threshold is not None and slow is None,
        "slow_call_duration",
        "set while slow_call_rate_threshold is",
    )
    yield (
        settings.recovery_timeout_max is not None
        and settings.recovery_timeout_max < settings.recovery_timeout,
        "recovery_timeout_max",
        f"at least recovery_timeout ({settings.recovery_timeout})",
    )
    yield (
        settings.open_on_hanging and settings.slow_call_rate_threshold is None,
        "open_on_hanging",
        "False, or slow_call_rate_threshold be set",
    )
    yield (
        settings.open_on_hanging and slow is not None and settings.probe_lease <= slow,
        "probe_lease",
        f"above slow_call_duration ({slow}) while open_on_hanging is set",
    )


def looks_like_milliseconds(setting: str, seconds: float | None) -> bool:
    """Return whether a time is unlikely in seconds, and nobody has been warned of it yet.

    Once for each value, because the same settings may be made many times. Files warn themselves:
    they know the place, and whether the value may be shown.
    """
    if seconds is None or seconds <= MAX_LIKELY_SECONDS or (setting, seconds) in _warned:
        return False
    _warned.add((setting, seconds))
    return True


_warned: set[tuple[str, float]] = set()


def describe_differences(settings: BreakerSettings, others: BreakerSettings) -> str:
    """Return in which fields two settings differ: ``failure_threshold is 5, not 3``."""
    differ = (
        (field.name, getattr(settings, field.name), getattr(others, field.name))
        for field in dataclasses.fields(settings)
    )
    return "; ".join(
        f"{name} is {value!r}, not {other!r}" for name, value, other in differ if value != other
    )


_RULES: dict[str, Rule] = {
    "failure_threshold": COUNT.or_none,
    "recovery_timeout": SECONDS,
    "half_open_max_calls": COUNT,
    "expected_exceptions": EXCEPTIONS,
    "ignored_exceptions": EXCEPTIONS,
    "classify_exception": PLAIN_FUNCTION.or_none,
    "classify_result": PLAIN_FUNCTION.or_none,
    "window_calls": COUNT.or_none,
    "window_seconds": SECONDS.or_none,
    "minimum_calls": COUNT,
    "failure_rate_threshold": SHARE.or_none,
    "slow_call_rate_threshold": SHARE.or_none,
    "slow_call_duration": SECONDS.or_none,
    "max_wait": SECONDS.or_none,
    "open_on_hanging": SWITCH,
    "probe_lease": SECONDS,
    "recovery_timeout_growth": GROWTH,
    "recovery_timeout_max": SECONDS.or_none,
    "recovery_timeout_jitter": JITTER,
    "ramp_duration": SECONDS.or_none,
    "log_messages": SWITCH,
}

_CHECKS = tuple(
    (setting, rule, BreakerSettings.__dataclass_fields__[setting].default)
    for setting, rule in _RULES.items()
)
"""Each setting, its rule, and the value that needs no check: most settings are the defaults."""

CRITICAL = BreakerSettings(failure_threshold=3, recovery_timeout=120.0, half_open_max_calls=5)
"""A dependency that must not be harmed, such as payments: opens early, closes with care."""

LENIENT = BreakerSettings(failure_threshold=10, recovery_timeout=30.0, half_open_max_calls=2)
"""A dependency that callers can do without, such as recommendations: opens late, closes soon."""

HIGH_TRAFFIC = BreakerSettings(failure_threshold=5, recovery_timeout=45.0, half_open_max_calls=3)
"""A dependency under much load, such as search: in between."""

PRESETS: Mapping[str, BreakerSettings] = {
    "critical": CRITICAL,
    "lenient": LENIENT,
    "high-traffic": HIGH_TRAFFIC,
}
"""The presets, by the names that files use."""


def check_settings(value: object, name: str = "settings") -> BreakerSettings:
    """Return `value` if it is a :class:`BreakerSettings`; `name` says where it was given.

    Raises:
        SettingsError: it is not.
    """
    if not isinstance(value, BreakerSettings):
        raise invalid(name, "BreakerSettings", value, settings_hint(value))
    return value


def settings_hint(value: object) -> str:
    """Return what to write instead of `value`, which is not settings; empty if that is unknown."""
    if isinstance(value, str):
        preset = nearest(value, PRESETS)
        return f"write fusewire.breaker.PRESETS[{preset!r}]" if preset else ""
    if not isinstance(value, Mapping):
        return ""
    try:
        BreakerSettings(**value)
    except (SettingsError, TypeError) as error:
        return f"write BreakerSettings(...), and mind: {error}"
    arguments = ", ".join(f"{name}={given!r}" for name, given in value.items())
    return f"write BreakerSettings({arguments})"
