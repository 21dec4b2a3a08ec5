"""What a breaker knows at one moment, as a value that survives JSON and a restart."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._histogram import Counts, Histogram, MethodDurations, filled
from fusewire.breaker._states import CircuitState
from fusewire.breaker._transitions import AUTOMATIC, Transition
from fusewire.breaker._windows import Bucket

FORMAT = 1
"""The version of the JSON form. Reading an unknown version fails.

Releases of this version refuse members that they do not know. So what is added later stands in an
object that is called ``format`` too, before the number: of two members of one name, JSON readers
take the last, and those releases never see it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a breaker has counted since it was made. No counter ever decreases.

    Attributes:
        succeeded: calls that the dependency answered, slow ones among them.
        failed: calls that failed.
        ignored: calls that said nothing: cancelled, abandoned, or an exception that does not count.
        slow: calls that took longer than ``slow_call_duration``, whatever their outcome.
        rejected: calls that were not admitted.
        late: results that arrived after the state had changed, or after a probe's lease.
        expired: leases of probes that expired.
        opened: how often the circuit opened.
        transitions: how often it went from one state to another: the four transitions that it makes
            on its own, also those not made yet, and those by hand that were made.
        open_seconds: seconds in which it admitted no calls, open or forced open.
        fallbacks_answered: calls that were rejected or failed, and that a fallback answered.
        fallbacks_failed: the same where the fallback raised or declined, so the caller got an
            error.
    """

    succeeded: int = 0
    failed: int = 0
    ignored: int = 0
    slow: int = 0
    rejected: int = 0
    late: int = 0
    expired: int = 0
    opened: int = 0
    transitions: tuple[Transition, ...] = AUTOMATIC
    open_seconds: float = 0.0
    fallbacks_answered: int = 0
    fallbacks_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A breaker at one moment.

    Attributes:
        name: the breaker's name.
        state: its state.
        retry_after: seconds until a call may be admitted; 0.0 if one would be admitted now.
        reason: why it last opened; ``None`` if it never did.
        consecutive_failures: failures in a row.
        reopenings: rounds of probes that have failed since it was last closed.
        calls: calls in the window.
        failed: failed ones among them.
        slow: slow ones among them.
        probes_running: probes in flight.
        probes_succeeded: probes that have succeeded since it became half open.
        counters: totals since it was made.
        window: the content of the window, oldest first.
        durations: how long calls took, by method; empty if they are not measured.
        by: who set the state by hand, as far as they said.
        note: why they did.
        error_type: the type of the last failure's error; empty if it is not known.
        error_status: the name of its status; empty if it has none.
    """

    name: str
    state: CircuitState
    retry_after: float
    reason: Reason | None
    consecutive_failures: int
    reopenings: int
    calls: int
    failed: int
    slow: int
    probes_running: int
    probes_succeeded: int
    counters: Counters
    window: tuple[Bucket, ...]
    durations: tuple[MethodDurations, ...] = ()
    by: str = ""
    note: str = ""
    error_type: str = ""
    error_status: str = ""

    @property
    def failure_rate(self) -> float:
        """Share of failures among the calls in the window; 0.0 if it is empty."""
        return self.failed / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """Share of slow calls among the calls in the window; 0.0 if it is empty."""
        return self.slow / self.calls if self.calls else 0.0

    def to_json(self) -> str:
        """Return it as a JSON object on one line."""
        fields = dataclasses.asdict(dataclasses.replace(self, durations=()))
        del fields["durations"]
        added: dict[str, Any] = {
            "durations": [_durations_to_json(each) for each in self.durations],
            **{name: fields.pop(name) for name in _TEXTS},
            **{name: fields["counters"].pop(name) for name in _COUNTERS},
            "transitions": [
                each for each in fields["counters"].pop("transitions") if each["count"]
            ],
        }
        text = json.dumps({"format": FORMAT, **fields})
        added = {name: value for name, value in added.items() if value}
        return f'{{"format": {json.dumps(added)}, {text[1:]}' if added else text

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: `text` is not a snapshot, or its format is unknown.
        """
        try:
            fields: dict[str, Any] = json.loads(text, object_pairs_hook=_with_additions)
            _check_format(fields.pop("format"))
            reason = fields.pop("reason")
            if reason is not None:
                reason = Reason(**{**reason, "cause": Cause(reason["cause"])})
            texts: dict[str, Any] = {name: _text(fields, name) for name in _TEXTS}
            snapshot = cls(
                state=CircuitState(fields.pop("state")),
                reason=reason,
                counters=_counters_of_json(fields),
                window=tuple(Bucket(**each) for each in fields.pop("window")),
                durations=tuple(map(_durations_of_json, fields.pop("durations", ()))),
                **texts,
                **fields,
            )
            _check_numbers(snapshot)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is not a snapshot of a circuit breaker: {error}") from error
        return snapshot


def _check_format(version: object) -> None:
    if version != FORMAT:
        raise ValueError(f"its format must be {FORMAT}, got {version!r}")


def _check_numbers(snapshot: Snapshot) -> None:
    # An impossible number would fail later, in the middle of a call.
    counters = snapshot.counters
    parts: list[Any] = [snapshot, counters, *counters.transitions, *snapshot.window]
    if snapshot.reason is not None:
        parts.append(snapshot.reason)
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            kinds = _NUMBERS.get(str(field.type))
            if kinds:
                _check_number(field.name, value, kinds)


def _check_number(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if type(value) not in kinds or not 0 <= value < math.inf:
        raise ValueError(f"its {name} must be a finite number of at least 0, got {value!r}")


_NUMBERS = {"int": (int,), "float": (int, float)}


def _with_additions(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object, and what its first ``format`` adds: see FORMAT."""
    fields = dict(members)
    for name, value in members:
        if name == "format" and isinstance(value, dict):
            fields.update({added: value[added] for added in _ADDED if added in value})
    return fields


_TEXTS = ("by", "note", "error_type", "error_status")
_COUNTERS = ("open_seconds", "fallbacks_answered", "fallbacks_failed")
_ADDED = (*_TEXTS, *_COUNTERS, "durations", "transitions")


def _text(fields: dict[str, Any], name: str) -> str:
    text = fields.pop(name, "")
    if not isinstance(text, str):
        raise TypeError(f"its {name} must be a string, got {text!r}")
    return text


def _counters_of_json(fields: dict[str, Any]) -> Counters:
    counts = {(each.old, each.new): each.count for each in AUTOMATIC}
    for each in fields.pop("transitions", ()):
        counts[CircuitState(each["old"]), CircuitState(each["new"])] = each["count"]
    return Counters(
        **fields.pop("counters"),
        transitions=tuple(Transition(old, new, count) for (old, new), count in counts.items()),
        **{name: fields.pop(name) for name in _COUNTERS if name in fields},
    )


def _durations_to_json(durations: MethodDurations) -> dict[str, Any]:
    return {
        "method": durations.method,
        "answered": _histogram_to_json(durations.answered),
        "failed": _histogram_to_json(durations.failed),
        "baseline": _histogram_to_json(durations.baseline),
    }


def _durations_of_json(fields: Any) -> MethodDurations:
    method = fields["method"]
    if not isinstance(method, str):
        raise TypeError(f"a method of its durations must be a string, got {method!r}")
    return MethodDurations(
        method=method,
        answered=_histogram_of_json(fields["answered"]),
        failed=_histogram_of_json(fields["failed"]),
        baseline=_histogram_of_json(fields["baseline"]),
    )


def _histogram_to_json(histogram: Histogram) -> dict[str, Any]:
    """Return the buckets that have calls, each by its upper bound in seconds."""
    return {"calls": filled(histogram), "seconds": histogram.seconds}


def _histogram_of_json(fields: Any) -> Histogram:
    counts = Counts()
    for bound, count in fields["calls"]:
        _check_number("bound of durations", bound, (int, float))
        _check_number("count of durations", count, (int,))
        counts.add(bound, count)
    _check_number("seconds", fields["seconds"], (int, float))
    counts.seconds = fields["seconds"]
    return counts.histogram()
