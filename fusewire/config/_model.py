"""What a file of our own form may hold: the models that check it and make its JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from fusewire._validation import (
    COUNT,
    DELAYS,
    GROWTH,
    JITTER,
    RATE,
    SECONDS,
    SHARE,
    SWITCH,
    WEIGHT,
    Rule,
    count_up_to,
    one_of,
)
from fusewire.breaker import PRESETS
from fusewire.config._exceptions import exception_named
from fusewire.config._values import (
    Misread,
    read_count,
    read_fraction,
    read_number,
    read_seconds,
    read_switch,
    read_within,
    read_word,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = ("automatic", "forced_open", "disabled", "metrics_only")
"""What a file may make of a circuit; the modes of :class:`~fusewire.breaker.CircuitMode`."""

_MOST_HELD = 65535  # as ReplayPolicy

_DURATION = "a duration above 0 (30s, 500ms, 2m, 1h, PT30S, or a plain number of seconds)"
_FRACTION = "a fraction above 0 and up to 1 (0.5 or 50%)"

_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {
            "type": "string",
            "pattern": r"^\s*((\d+(\.\d*)?\s?(ns|us|ms|s|m|h|d)\s?)+|[Pp][0-9DdTtHhMmSs.]+)$|\$\{",
        },
    ]
}
_PLACEHOLDER_SCHEMA = {"type": "string", "pattern": r"\$\{"}


def misread(accepted: str, remedy: str) -> PydanticCustomError:
    """Make the error that a validator raises, which is how pydantic hears of it."""
    return PydanticCustomError("misread", "misread", {"accepted": accepted, "remedy": remedy})


def _kind(
    rule: Rule,
    read: Callable[[object], object],
    accepted: str,
    schema: dict[str, Any],
    *,
    nullable: bool = False,
) -> tuple[PlainValidator, WithJsonSchema]:
    """Return what makes a type of a kind of values."""
    if nullable:
        accepted += ", or null for none"
        schema = {"anyOf": [*_alternatives(schema), {"type": "null"}]}

    def validate(value: object) -> object:
        meant = read_within(value, rule, read, nullable=nullable)
        if isinstance(meant, Misread):
            raise misread(meant.accepted or accepted, meant.remedy)
        return meant

    return PlainValidator(validate), WithJsonSchema(schema)


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return found


def _or_placeholder(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _PLACEHOLDER_SCHEMA]}


_COUNT_SCHEMA = _or_placeholder({"type": "integer", "minimum": 1})
_FRACTION_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s?%$|\$\{"},
    ]
}
_JITTER_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s?%$|\$\{"},
    ]
}

_count = _kind(COUNT, read_count, COUNT.accepted, _COUNT_SCHEMA)
_count_or_null = _kind(COUNT, read_count, COUNT.accepted, _COUNT_SCHEMA, nullable=True)
_seconds = _kind(SECONDS, read_seconds, _DURATION, _DURATION_SCHEMA)
_seconds_or_null = _kind(SECONDS, read_seconds, _DURATION, _DURATION_SCHEMA, nullable=True)
_share_or_null = _kind(SHARE, read_fraction, _FRACTION, _FRACTION_SCHEMA, nullable=True)
_jitter = _kind(JITTER, read_fraction, "a fraction from 0 and below 1 (0.2 or 20%)", _JITTER_SCHEMA)
_growth = _kind(
    GROWTH, read_number, GROWTH.accepted, _or_placeholder({"type": "number", "minimum": 1})
)
_above_zero = _or_placeholder({"type": "number", "exclusiveMinimum": 0})
_switch = _kind(SWITCH, read_switch, "true or false", _or_placeholder({"type": "boolean"}))


def _words(*words: str) -> tuple[PlainValidator, WithJsonSchema]:
    rule = one_of(*words)
    *first, last = words
    return _kind(
        rule,
        lambda value: read_word(value, words),
        f"{', '.join(first)} or {last}",
        _or_placeholder({"enum": list(words)}),
    )


def _read_name(value: object) -> object:
    return value if isinstance(value, str) and value else Misread("write a name, quoted if needed")


def _read_exception(value: object) -> type[BaseException]:
    """Read one exception class."""
    found = exception_named(value) if isinstance(value, str) else Misread("write names of classes")
    if isinstance(found, Misread):
        raise misread("the name of an exception class, such as TimeoutError", found.remedy)
    return found


_name = _kind(
    Rule("a name", lambda value: isinstance(value, str)), _read_name, "a name", {"type": "string"}
)

Count: TypeAlias = Annotated[int, *_count]
CountOrNull: TypeAlias = Annotated[int | None, *_count_or_null]
Seconds: TypeAlias = Annotated[float, *_seconds]
SecondsOrNull: TypeAlias = Annotated[float | None, *_seconds_or_null]
ShareOrNull: TypeAlias = Annotated[float | None, *_share_or_null]
Jitter: TypeAlias = Annotated[float, *_jitter]
Growth: TypeAlias = Annotated[float, *_growth]
Switch: TypeAlias = Annotated[bool, *_switch]
Name: TypeAlias = Annotated[str, *_name]
Preset: TypeAlias = Annotated[str, *_words(*PRESETS)]
Mode: TypeAlias = Annotated[str, *_words(*MODES)]
Scope: TypeAlias = Annotated[str, *_words("replica", "cluster")]
Weight: TypeAlias = Annotated[float, *_kind(WEIGHT, read_number, WEIGHT.accepted, _above_zero)]
RateOrNull: TypeAlias = Annotated[
    float | None, *_kind(RATE, read_number, RATE.accepted, _above_zero, nullable=True)
]
Held: TypeAlias = Annotated[
    int,
    *_kind(
        count_up_to(_MOST_HELD, "which is AMQP's limit"),
        read_count,
        f"a whole number from 1 to {_MOST_HELD}, which is AMQP's limit",
        _or_placeholder({"type": "integer", "minimum": 1, "maximum": _MOST_HELD}),
    ),
]
Exceptions: TypeAlias = list[
    Annotated[Any, PlainValidator(_read_exception), WithJsonSchema({"type": "string"})]
]
"""Exception classes, by name."""


class Section(BaseModel):
    """A mapping that knows its keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DefaultSettings(Section):
    """Settings of circuits that nothing else says; code's settings come before them."""

    preset: Preset = Field("", description="A preset of the library, to start from.")
    failure_threshold: CountOrNull = Field(5, description="Failures in a row that open it.")
    recovery_timeout: Seconds = Field(30.0, description="Time until probes are let through.")
    half_open_max_calls: Count = Field(3, description="Successful probes that close it.")
    expected_exceptions: Exceptions = Field([], description="Exceptions that are failures.")
    ignored_exceptions: Exceptions = Field([], description="Exceptions that say nothing.")
    window_calls: CountOrNull = Field(None, description="Calls that the rates are taken from.")
    window_seconds: SecondsOrNull = Field(None, description="Or the time that they are taken from.")
    minimum_calls: Count = Field(10, description="Calls before a rate can open it.")
    failure_rate_threshold: ShareOrNull = Field(None, description="Share of failures that opens.")
    slow_call_rate_threshold: ShareOrNull = Field(None, description="Share of slow calls.")
    slow_call_duration: SecondsOrNull = Field(None, description="A longer call is slow.")
    max_wait: SecondsOrNull = Field(None, description="Cancelled after this: a failure.")
    open_on_hanging: Switch = Field(False, description="Whether hanging calls are slow at once.")  # noqa: FBT003 - a default
    probe_lease: Seconds = Field(60.0, description="Time after which a lost probe makes room.")
    recovery_timeout_growth: Growth = Field(1.0, description="Factor for each failed probe.")
    recovery_timeout_max: SecondsOrNull = Field(None, description="The longest open time.")
    recovery_timeout_jitter: Jitter = Field(0.0, description="Share that is randomly taken off.")
    ramp_duration: SecondsOrNull = Field(None, description="Time to admit all after closing.")
    log_messages: Switch = Field(False, description="Whether the log shows errors' texts.")  # noqa: FBT003 - a default


class CircuitSettings(DefaultSettings):
    """Settings of a circuit, or of all whose names match: they come before code's settings."""

    base: Name = Field("", description="The name of one of `bases`, to start from.")
    mode: Mode = Field("automatic", description="How the circuit works; not automatic: by hand.")


class Breakers(Section):
    """Circuit breakers."""

    defaults: DefaultSettings = Field(DefaultSettings.model_construct())
    bases: dict[str, CircuitSettings] = Field({}, description="Settings to start from, by name.")
    circuits: dict[str, CircuitSettings] = Field(
        {}, description="Settings by circuit, or by pattern: `*`, `?` and `[…]` as in a shell."
    )


def _check_delays(delays: list[float]) -> list[float]:
    """Refuse delays that do not grow, or that a broker cannot count."""
    if not DELAYS.fits(delays):
        raise misread(DELAYS.accepted, "sort them, and write each once")
    return delays


class Retry(Section):
    """When a message that failed is tried again: RetryPolicy."""

    max_attempts: Count = Field(5, description="Failed attempts after which a message is dead.")
    delays: Annotated[list[Seconds], AfterValidator(_check_delays)] = Field(
        [], description="Times before the second, third, … attempt."
    )
    max_age: SecondsOrNull = Field(None, description="Time after which a message is dead.")
    dead_on: Exceptions = Field([], description="Exceptions that make a message dead at once.")


class Replay(Section):
    """How parked messages are replayed: ReplayPolicy."""

    concurrency: Held = Field(64, description="The most replays in flight, of one replica.")
    rate: RateOrNull = Field(None, description="The most replays that begin in a second.")
    yields: Weight = Field(0.75, description="How readily replays give way to live traffic.")
    scope: Scope = Field("replica", description="Whose limits these are.")


class Consumer(Section):
    """The policies of one consumer."""

    retry: Retry = Field(Retry.model_construct())
    replay: Replay = Field(Replay.model_construct())


class Tls(Section):
    """TLS of a forwarder's channel; an empty one trusts the system's authorities."""

    ca: Name = Field("", description="File of the authorities to trust, in PEM.")
    certificate: Name = Field("", description="File of the forwarder's certificate, in PEM.")
    key: Name = Field("", description="File of its private key, in PEM.")
    server_name: Name = Field("", description="Whose certificate the server has, if not target's.")


class ForwardedMethod(Section):
    """What is known of a method whose calls are forwarded: ParkPolicy."""

    idempotent: Switch = Field(False, description="Whether the server honors the key.")  # noqa: FBT003 - a default
    at_most_once: Switch = Field(False, description="Or each call is sent once at most.")  # noqa: FBT003 - a default
    window: SecondsOrNull = Field(None, description="For how long a foreign server knows a key.")


class Forwarder(Section):
    """What `fusewire forward` does with the stored calls of a queue."""

    broker: Name = Field("", description="Address of the broker; a variable, if it has a password.")
    target: Name = Field("", description="The server: host:port, or another target of gRPC's.")
    tls: Tls = Field(Tls.model_construct(), description="TLS; without it there is none.")
    exchange: Name = Field("", description="The exchange of RabbitMQ that calls move through.")
    lanes: dict[str, list[Name]] = Field({}, description="Breakers by lane, as where calls park.")
    methods: dict[str, ForwardedMethod] = Field({}, description="Methods: /package.Service/Method.")
    replay_timeout: Seconds = Field(30.0, description="For an attempt of calls without deadline.")
    shutdown_timeout: Seconds = Field(30.0, description="That replays may take at the end.")


class Fusewire(Section):
    """What Fusewire reads."""

    breakers: Breakers = Field(Breakers.model_construct())
    consumers: dict[str, Consumer] = Field({}, description="Policies of consumers, by queue.")
    forwarders: dict[str, Forwarder] = Field({}, description="Programs that forward, by queue.")


class File(BaseModel):
    """A file of settings for Fusewire. Other keys at its top belong to others."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    fusewire: Fusewire = Field(Fusewire.model_construct())
