"""Every key of resilience4j's circuit breakers: taken, noted, or refused.

After ``CommonCircuitBreakerConfigurationProperties.InstanceProperties`` of resilience4j 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._validation import GROWTH, JITTER, SECONDS, SECONDS_OR_ZERO, Rule
from fusewire.config._spring_values import (
    read_boolean,
    read_enum,
    read_factor,
    read_milliseconds,
    read_percent,
    read_whole,
)
from fusewire.config._values import Misread, read_within

if TYPE_CHECKING:
    from collections.abc import Callable


_ANY = Rule("any value", lambda _: True)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is known.

    Attributes:
        name: the key.
        accepted: what it accepts.
        read: reads its value; None for a key that is refused whatever its value.
        rule: what its value must fit, besides being read.
        note: what a reader should know of it; empty for nothing.
        remedy: what to do in place of a key that is refused.
    """

    name: str
    accepted: str
    read: Callable[[object], object] | None
    rule: Rule = _ANY
    note: str = ""
    remedy: str = ""

    def meaning(self, value: object) -> object:
        """Return what a value means, or what is wrong with it."""
        if self.read is None:
            return Misread(self.remedy)
        return read_within(value, self.rule, self.read, nullable=False)


def _text(value: object) -> str | Misread:
    return value if isinstance(value, str) and value else Misread("write a name")


def _list(value: object) -> list[object] | Misread:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else Misread("write a list of classes")


def _type(value: object) -> str | Misread:
    return read_enum(value, ("COUNT_BASED", "TIME_BASED"))


_STATES = ("CLOSED", "FORCED_OPEN", "DISABLED", "METRICS_ONLY")


def _state(value: object) -> str | Misread:
    state = read_enum(value, (*_STATES, "OPEN", "HALF_OPEN"))
    if state in ("OPEN", "HALF_OPEN"):
        return Misread("write FORCED_OPEN, which stays; an open circuit would soon try again")
    return state


def _after_wait(value: object) -> str | Misread:
    state = read_enum(value, ("OPEN", "HALF_OPEN", "CLOSED"))
    if state == "CLOSED":
        return Misread("remove it: it would close a circuit that no call has tried")
    return state


_CLASS = "left out, because it names a Java class"
_IN_CODE = "give {} in code"
_MILLISECONDS = "a duration (30s, 500ms, PT30S; a plain number is milliseconds)"
_PERCENT = "a percent from 1 to 100"
_WHOLE = "a whole number of at least 1"
_SWITCH = "true or false"
_NAMES = "a list of exception classes"

_KEYS = (
    Key("baseConfig", "the name of one of configs", _text),
    Key("slidingWindowType", "COUNT_BASED or TIME_BASED", _type),
    Key("slidingWindowSize", _WHOLE, read_whole),
    Key("minimumNumberOfCalls", _WHOLE, read_whole),
    Key("failureRateThreshold", _PERCENT, read_percent),
    Key("slowCallRateThreshold", _PERCENT, read_percent),
    Key("slowCallDurationThreshold", _MILLISECONDS, read_milliseconds, SECONDS),
    Key("waitDurationInOpenState", _MILLISECONDS, read_milliseconds, SECONDS),
    Key(
        "permittedNumberOfCallsInHalfOpenState",
        _WHOLE,
        read_whole,
        note="one failure reopens the circuit here; there, the rate of all of them decides",
    ),
    Key(
        "maxWaitDurationInHalfOpenState",
        _MILLISECONDS,
        read_milliseconds,
        SECONDS_OR_ZERO,
        note="a probe that never ends makes room after probe_lease here, 60 s by default",
    ),
    Key(
        "transitionToStateAfterWaitDuration",
        "OPEN or HALF_OPEN",
        _after_wait,
        note="it has no effect: after a lost probe the circuit lets another one through",
    ),
    Key(
        "automaticTransitionFromOpenToHalfOpenEnabled",
        _SWITCH,
        read_boolean,
        note="it has no effect: the state is half open as soon as somebody looks",
    ),
    Key("initialState", ", ".join(_STATES), _state),
    Key("recordExceptions", _NAMES, _list),
    Key("ignoreExceptions", _NAMES, _list),
    Key("ignoreClassBindingExceptions", _SWITCH, read_boolean),
    Key("recordFailurePredicate", _CLASS, None, remedy=_IN_CODE.format("classify_exception")),
    Key("ignoreExceptionPredicate", _CLASS, None, remedy=_IN_CODE.format("classify_exception")),
    Key("recordResultPredicate", _CLASS, None, remedy=_IN_CODE.format("classify_result")),
    Key("enableExponentialBackoff", _SWITCH, read_boolean),
    Key("exponentialBackoffMultiplier", "a number of at least 1", read_factor, GROWTH),
    Key("exponentialMaxWaitDurationInOpenState", _MILLISECONDS, read_milliseconds, SECONDS),
    Key(
        "enableRandomizedWait",
        _SWITCH,
        read_boolean,
        note="the open time is only shortened here; there, it is also lengthened",
    ),
    Key("randomizedWaitFactor", "a fraction from 0 and below 1", read_factor, JITTER),
    Key("allowHealthIndicatorToFail", _SWITCH, read_boolean),
    Key(
        "registerHealthIndicator",
        _SWITCH,
        read_boolean,
        note="health shows all circuits; readiness follows those of ready_needs",
    ),
    Key(
        "writableStackTraceEnabled",
        _SWITCH,
        read_boolean,
        note="it has no effect: a rejection is cheap with its traceback",
    ),
    Key(
        "eventConsumerBufferSize",
        _WHOLE,
        read_whole,
        note="it has no effect: events go to listeners, and no buffer keeps them",
    ),
)


def canonical(key: str) -> str:
    """Return a key as Spring compares keys: without hyphens, underscores and case."""
    return key.replace("-", "").replace("_", "").lower()


KEYS = {canonical(key.name): key for key in _KEYS}
"""The keys, by how Spring compares them."""

NOTED_SECTIONS = {
    canonical(name): note
    for name, note in {
        "circuitBreakerAspectOrder": "it has no effect: there are no aspects",
        "tags": "it has no effect: labels of metrics are fixed",
        "metrics": "it has no effect: metrics are exported by code",
    }.items()
}
"""Keys beside the instances that have no effect here."""

MISTAKEN = {
    canonical(wrong): canonical(right)
    for wrong, right in {
        "recordExceptionPredicate": "recordFailurePredicate",  # as the builder in Java calls it
        "ringBufferSizeInClosedState": "slidingWindowSize",  # as resilience4j 0.x called them
        "ringBufferSizeInHalfOpenState": "permittedNumberOfCallsInHalfOpenState",
    }.items()
}
"""Keys that people write, and that Spring ignores."""
