"""What a breaker knows at one moment, as a value that survives JSON and a restart."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._states import CircuitState
from fusewire.breaker._windows import Bucket

FORMAT = 1
"""The version of the JSON form. Reading an unknown version fails."""


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
    """

    succeeded: int = 0
    failed: int = 0
    ignored: int = 0
    slow: int = 0
    rejected: int = 0
    late: int = 0
    expired: int = 0
    opened: int = 0


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
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: `text` is not a snapshot, or its format is unknown.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            _check_format(fields.pop("format"))
            reason = fields.pop("reason")
            if reason is not None:
                reason = Reason(**{**reason, "cause": Cause(reason["cause"])})
            snapshot = cls(
                state=CircuitState(fields.pop("state")),
                reason=reason,
                counters=Counters(**fields.pop("counters")),
                window=tuple(Bucket(**each) for each in fields.pop("window")),
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
    parts: list[Any] = [snapshot, snapshot.counters, *snapshot.window]
    if snapshot.reason is not None:
        parts.append(snapshot.reason)
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            kinds = _NUMBERS.get(str(field.type))
            if kinds and (type(value) not in kinds or not 0 <= value < math.inf):
                raise ValueError(
                    f"its {field.name} must be a finite number of at least 0, got {value!r}"
                )


_NUMBERS = {"int": (int,), "float": (int, float)}
