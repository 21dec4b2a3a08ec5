"""What the demo's processes have reported so far: bookkeeping without I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fusewire.breaker import CircuitState
from fusewire.parking import MessageOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RECENT = 5.0  # seconds of calls that count as recent


@dataclass(frozen=True, slots=True)
class Answer:
    """How one payment was answered.

    Attributes:
        begin: when it was requested, in monotonic seconds.
        took: seconds until its answer.
        result: ``ok``, ``pending`` or ``error``.
        operation_id: of the reply; empty for an error.
        code: the status and its details; empty without an error.
    """

    begin: float
    took: float
    result: str
    operation_id: str
    code: str


@dataclass(slots=True)
class Outcomes:
    """Outcomes of units of work, as sets of operation ids; an id stays in a set once it is in."""

    handled: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    replayed: set[str] = field(default_factory=set)
    delayed: set[str] = field(default_factory=set)
    dead: dict[str, str] = field(default_factory=dict)
    """Operation id to the reason."""

    def note(self, outcome: str, operation_id: str, reason: str) -> None:
        """Note one settlement."""
        match outcome:
            case MessageOutcome.PARKED:
                self.parked.add(operation_id)
            case MessageOutcome.DELAYED:
                self.delayed.add(operation_id)
            case MessageOutcome.DEAD:
                self.dead[operation_id] = reason
            case MessageOutcome.HANDLED | MessageOutcome.REPLAYED:
                self.handled.add(operation_id)
                # One whose replay failed comes back by way of a delay, and is then just handled.
                if operation_id in self.parked or outcome == MessageOutcome.REPLAYED:
                    self.parked.add(operation_id)  # its confirmation may have been lost
                    self.replayed.add(operation_id)

    @property
    def waiting(self) -> set[str]:
        """Ids that are parked, and neither replayed nor dead."""
        return self.parked - self.replayed - self.dead.keys()


class Tally:
    """All that was reported, by subject.

    Attributes:
        asked: references of the payments that were requested.
        answers: reference to answer.
        payments: outcomes of parked calls.
        published: operation ids of the orders that were published.
        orders: outcomes of orders.
        circuits: process to the state of its circuit.
        ready: processes that are ready.
        quiet: processes that have ended their load.
        moments: when something happened, in monotonic seconds: first, or for ``last …`` last.
    """

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.answers: dict[str, Answer] = {}
        self.payments = Outcomes()
        self.published: set[str] = set()
        self.orders = Outcomes()
        self.circuits: dict[str, str] = {}
        self.ready: set[str] = set()
        self.quiet: set[str] = set()
        self.moments: dict[str, float] = {}
        self._recent: deque[Answer] = deque()

    def note(self, process: str, line: Mapping[str, Any]) -> None:
        """Note one line that a process reported."""
        at = line["at"]
        match line["what"]:
            case "ready":
                self.ready.add(process)
                self.circuits.setdefault(process, CircuitState.CLOSED)
            case "quiet":
                self.quiet.add(process)
            case "circuit":
                self._note_circuit(process, line["state"], at)
            case "asked":
                self.asked.add(line["reference"])
            case "published":
                self.published.add(line["operation"])
            case "answered":
                answer = Answer(
                    line["begin"], line["took"], line["result"], line["operation"], line["code"]
                )
                self.answers[line["reference"]] = answer
                self._recent.append(answer)
            case "message":
                outcomes = self.payments if process == "client" else self.orders
                outcomes.note(line["outcome"], line["operation"], line["reason"])
                if line["outcome"] == MessageOutcome.PARKED:
                    self.moments.setdefault(f"{process} parked", at)
                elif line["operation"] in outcomes.replayed:
                    self.moments.setdefault(f"{process} replayed", at)
                    self.moments[f"last {process} replayed"] = at

    def _note_circuit(self, process: str, state: str, at: float) -> None:
        self.circuits[process] = state
        if state == CircuitState.OPEN:
            self.moments.setdefault(f"{process} opened", at)
        elif state == CircuitState.CLOSED:
            self.moments[f"last {process} closed"] = at

    @property
    def nothing_waits(self) -> bool:
        """Whether nothing is parked, and every circuit is closed."""
        return (
            not self.payments.waiting
            and not self.orders.waiting
            and all(state == CircuitState.CLOSED for state in self.circuits.values())
        )

    @property
    def all_done(self) -> bool:
        """Whether every payment is answered, every order handled or dead, and nothing is parked."""
        return (
            self.nothing_waits
            and self.asked == self.answers.keys()
            and self.published <= self.orders.handled | self.orders.dead.keys()
        )

    def results(self, result: str) -> int:
        """Count the answers of a kind."""
        return sum(answer.result == result for answer in self.answers.values())

    def recent(self, now: float) -> list[float]:
        """Return how long recent payments took, in seconds."""
        while self._recent and self._recent[0].begin < now - _RECENT:
            self._recent.popleft()
        return [answer.took for answer in self._recent]


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank percentile, `share` from 0 to 1; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = max(-(-len(ordered) * share // 1), 1)  # rounded up
    return ordered[int(rank) - 1]
