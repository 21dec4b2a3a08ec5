"""What Fusewire knows about a message, in its headers while it is parked, delayed or dead."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fusewire.brokers import HeaderValue, Message

PREFIX = "fusewire-"
"""Every header of ours begins with it. Not ``x-``: that prefix is the broker's."""

FORMAT = 1
"""Version of the record; a newer one is not read, so that an old process never misreads it."""

OPERATION_ID = f"{PREFIX}operation-id"
"""Header by which a publisher may give the identity of the unit of work."""

NOT_AFTER = f"{PREFIX}not-after-ms"
"""Header by which a publisher may give the time after which the message is of no use.

In whole milliseconds since 1970: the AMQP client writes floats with 32 bits only."""

KEYS_BY_REQUEST = 1
"""The scheme of idempotency keys that are made of the request; see :mod:`fusewire.operation`."""

_MOST_KEYS = 16

_FORMAT_HEADER = f"{PREFIX}format"


class MalformedMessageError(FusewireError):
    """A message carries headers of ours that cannot be read. It goes to the dead queue."""


# Not frozen, although nothing changes one: it is made for each message, which would take four times
# as long.
@dataclass(slots=True, kw_only=True)
class History:
    """The history of one message.

    Attributes:
        operation_id: identity of the unit of work, the same on every redelivery and replay.
        queue: the source queue that it came from.
        dependency: name of the breaker that it waits for, or that its last failure belongs to.
        reason: why it was moved last.
        attempts: calls of the handler that failed, made while the circuit was closed.
        outage_attempts: calls of the handler that failed, made as probes of a circuit that was not.
        times_parked: how often it was parked.
        times_postponed: how often its handler asked for another time.
        first_parked_at_ms: when it was parked first, in milliseconds since 1970, as all times here.
        parked_at_ms: when it was parked last.
        waits_until_ms: when the open time of its circuit was to end, when it was parked again.
        first_failed_at_ms: when its first failed attempt ended.
        failed_at_ms: when its last failed attempt ended.
        first_postponed_at_ms: when its handler first asked for another time.
        postponed_until_ms: the time that it asked for last.
        first_sent_ms: no later than when the call that it stores was first sent; None if it was
            not, or is none.
        exception: type of the last failure.
        exception_message: its message, capped.
        stack: its stack, capped.
        not_after_ms: the time after which it is not handled but goes to the dead queue.
        at_most_once: it must not be tried a second time where a first try cannot be ruled out.
        key_scheme: how the idempotency keys of its calls are made: 1 of the request, 0 of the
            ordinal of the call, as before. It keeps the one that its first attempt had.
        doubtful_keys: keys of calls that may have had an effect, and that are to be made again;
            the last 16, with a space between them.
        refusals: how often a full server refused its calls.
        lone: which time it is that it is handled with nothing else in flight, because it may have
            killed its process; 0 if there is no such suspicion.
        moved_by: which span of a trace moved it last, in the form of W3C's ``traceparent``.
        live_calls: what live calls of `dependency` took before it failed, as the replica knew that
            parked it: see :mod:`~fusewire.parking._live_calls`.
    """

    operation_id: str
    queue: str = ""
    dependency: str = ""
    reason: str = ""
    attempts: int = 0
    outage_attempts: int = 0
    times_parked: int = 0
    times_postponed: int = 0
    first_parked_at_ms: int | None = None
    parked_at_ms: int | None = None
    waits_until_ms: int | None = None
    first_failed_at_ms: int | None = None
    failed_at_ms: int | None = None
    first_postponed_at_ms: int | None = None
    postponed_until_ms: int | None = None
    first_sent_ms: int | None = None
    exception: str = ""
    exception_message: str = ""
    stack: str = ""
    not_after_ms: int | None = None
    at_most_once: bool = False
    key_scheme: int = KEYS_BY_REQUEST
    doubtful_keys: str = ""
    refusals: int = 0
    lone: int = 0
    moved_by: str = ""
    live_calls: str = ""

    def with_doubtful_keys(self, keys: Iterable[str]) -> History:
        """Return this record with other doubtful keys; of too many, the last ones."""
        kept = " ".join([*keys][-_MOST_KEYS:])
        return self if kept == self.doubtful_keys else dataclasses.replace(self, doubtful_keys=kept)

    def sent_first(self, when_ms: int | None) -> History:
        """Return this record with the time of its call's first sending, unless it has one."""
        if when_ms is None or self.first_sent_ms is not None:
            return self
        return dataclasses.replace(self, first_sent_ms=when_ms)

    def moved(self, by: str) -> History:
        """Return this record as of a move that is traced as `by`, or not at all."""
        return self if by == self.moved_by else dataclasses.replace(self, moved_by=by)

    def unparked(self, before: History) -> History:
        """Return this record with its failures, but not parked more often than `before` was."""
        return dataclasses.replace(
            self,
            times_parked=before.times_parked,
            first_parked_at_ms=before.first_parked_at_ms,
            parked_at_ms=before.parked_at_ms,
            waits_until_ms=before.waits_until_ms,
        )

    @property
    def may_have_been_seen(self) -> bool:
        """Whether a handler may have had it before, and if only to meet an open circuit."""
        return bool(
            self.attempts or self.outage_attempts or self.times_parked or self.times_postponed
        )

    def to_headers(self, message: Message) -> Message:
        """Return `message` with this record in its headers."""
        return dataclasses.replace(message, headers=self.headers(message.headers))

    def headers(self, others: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
        """Return the headers that hold this record, beside those of `others` that hold none."""
        fields = zip(_FIELDS, _values(self), strict=True)
        # An absent header reads as "", None, 0 and False.
        ours = {header: value for header, value in fields if value}
        return {**strip(others), _FORMAT_HEADER: FORMAT, **ours}


def from_headers(message: Message, *, operation_id: str, queue: str = "") -> History:
    """Read a message's record; one that was never moved has a fresh one.

    Args:
        message: the message as it was stored.
        operation_id: the identity to use where the headers give none.
        queue: the source queue to use where the headers give none.

    Raises:
        MalformedMessageError: a header of ours has the wrong type, or the format is not known, or
            the broker could not read the message.
    """
    if message.unreadable is not None:
        raise MalformedMessageError(message.unreadable)
    headers = message.headers
    if (version := headers.get(_FORMAT_HEADER, FORMAT)) != FORMAT:
        raise MalformedMessageError(
            f"header {_FORMAT_HEADER} is {version!r:.200}, and this version of Fusewire reads "
            f"{FORMAT}"
        )
    values: dict[str, Any] = {}
    for header, value in headers.items():
        field = _FIELDS.get(header)
        if field is not None:
            # True is an int to Python, and would pass for a count.
            if type(value) is not _TYPES[header] or (
                header in _COUNTS and isinstance(value, int) and value < 0
            ):
                raise MalformedMessageError(_what_is_wrong(header, value))
            values[field] = value
    values["operation_id"] = values.get("operation_id") or operation_id
    values["queue"] = values.get("queue") or queue
    if was_moved(message):
        values.setdefault("key_scheme", 0)
    return History(**values)


def was_moved(message: Message) -> bool:
    """Return whether a message has been moved before."""
    return _FORMAT_HEADER in message.headers


def strip(headers: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
    """Return headers without those of a record: what the publisher set."""
    return {key: value for key, value in headers.items() if key not in _OURS}


def _what_is_wrong(header: str, value: HeaderValue) -> str:
    if type(value) is _TYPES[header]:
        return f"header {header} is negative: {value!r}"
    return f"header {header} is {value!r:.200}, which is not of the right type"


def _type_of(field: dataclasses.Field[Any]) -> type:
    if field.name.endswith("_ms"):
        return int
    return str if field.default is dataclasses.MISSING else type(field.default)


_FIELDS = {
    PREFIX + field.name.replace("_", "-"): field.name for field in dataclasses.fields(History)
}
_TYPES = dict(zip(_FIELDS, map(_type_of, dataclasses.fields(History)), strict=True))
_COUNTS = frozenset(
    header for header, wanted in _TYPES.items() if wanted is int and not header.endswith("-ms")
)
_OURS = frozenset({_FORMAT_HEADER, *_FIELDS})
_values = attrgetter(*_FIELDS.values())
