"""What the demo's processes have reported so far: bookkeeping without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fusewire.breaker import CircuitState
from fusewire.demo._config import Client
from fusewire.demo._curves import Curves
from fusewire.parking import MessageOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Answer:
    """How one payment was answered.

    Attributes:
        begin: when it was requested.
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
class Requests:
    """The payments that a client asked for.

    Attributes:
        asked: their references.
        answers: reference to answer.
        failed: how many of the answers are errors.
    """

    asked: set[str] = field(default_factory=set)
    answers: dict[str, Answer] = field(default_factory=dict)
    failed: int = 0

    def note(self, reference: str, answer: Answer) -> None:
        """Note an answer."""
        self.answers[reference] = answer
        self.failed += answer.result == "error"


@dataclass(slots=True)
class Outcomes:
    """Outcomes of units of work, as sets of operation ids; an id stays in a set once it is in."""

    handled: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    replayed: set[str] = field(default_factory=set)
    delayed: set[str] = field(default_factory=set)
    dead: dict[str, str] = field(default_factory=dict)
    """Operation id to the reason."""
    waiting: set[str] = field(default_factory=set)
    """Ids that are parked, and neither replayed nor dead."""

    def note(self, outcome: str, operation_id: str, reason: str) -> None:
        """Note one settlement."""
        match outcome:
            case MessageOutcome.PARKED:
                self.parked.add(operation_id)
                if operation_id not in self.replayed and operation_id not in self.dead:
                    self.waiting.add(operation_id)
            case MessageOutcome.DELAYED:
                self.delayed.add(operation_id)
            case MessageOutcome.DEAD:
                self.dead[operation_id] = reason
                self.waiting.discard(operation_id)
            case MessageOutcome.HANDLED | MessageOutcome.REPLAYED:
                self.handled.add(operation_id)
                # One whose replay failed comes back by way of a delay, and is then just handled.
                if operation_id in self.parked or outcome == MessageOutcome.REPLAYED:
                    self.parked.add(operation_id)  # its confirmation may have been lost
                    self.replayed.add(operation_id)
                    self.waiting.discard(operation_id)


SUBJECTS: Final = {"client": "payments", "orders": "orders"}
"""What a process works on."""


class Tally:
    """All that was reported, by subject. Its times are in seconds since the load began.

    Attributes:
        begin: when the load began, in monotonic seconds.
        requests: the payments that each client asked for.
        payments: outcomes of parked calls.
        published: operation ids of the orders that were published.
        orders: outcomes of orders.
        circuits: process to the state of its circuit.
        changes: when which process's circuit went to which state.
        turns: when something turned, in words.
        curves: what happened when.
        ready: processes that are ready.
        quiet: processes that have ended their load.
    """

    def __init__(self) -> None:
        self.begin = 0.0
        self.requests = {client: Requests() for client in Client}
        self.payments = Outcomes()
        self.published: set[str] = set()
        self.orders = Outcomes()
        self.circuits: dict[str, CircuitState] = {}
        self.changes: list[tuple[float, str, CircuitState]] = []
        self.turns: list[tuple[float, str]] = []
        self.curves = Curves()
        self.ready: set[str] = set()
        self.quiet: set[str] = set()

    def note(self, process: str, line: Mapping[str, Any]) -> None:
        """Note one line that a process reported."""
        at = line["at"] - self.begin
        match line["what"]:
            case "ready":
                self.ready.add(process)
            case "quiet":
                self.quiet.add(process)
            case "circuit":
                self._note_circuit(process, CircuitState(line["state"]), at)
            case "asked":
                self.requests[Client(line["client"])].asked.add(line["reference"])
            case "published":
                self.published.add(line["operation"])
            case "answered":
                self._note_answer(line)
            case "message":
                self._note_message(process, line, at)

    def _note_answer(self, line: Mapping[str, Any]) -> None:
        client = Client(line["client"])
        answer = Answer(
            line["begin"] - self.begin,
            line["took"],
            line["result"],
            line["operation"],
            line["code"],
        )
        self.requests[client].note(line["reference"], answer)
        self.curves.note_answer(client, answer.begin, answer.took, answer.result)

    def _note_circuit(self, process: str, state: CircuitState, at: float) -> None:
        before = self.circuits.get(process, CircuitState.CLOSED)
        self.circuits[process] = state
        self.changes.append((at, process, state))
        if before is CircuitState.CLOSED:
            self.turns.append((at, f"{SUBJECTS[process]}: the circuit opens"))
        elif state is CircuitState.CLOSED:
            self.turns.append((at, f"{SUBJECTS[process]}: the circuit is closed again"))

    def _note_message(self, process: str, line: Mapping[str, Any], at: float) -> None:
        subject = SUBJECTS[process]
        outcomes = self.payments if subject == "payments" else self.orders
        waited = len(outcomes.waiting)
        outcomes.note(line["outcome"], line["operation"], line["reason"])
        waits = len(outcomes.waiting)
        if waits == waited:
            return
        self.curves.note_waiting(subject, at, waits)
        if not waited:
            self.turns.append((at, f"{subject}: the first is parked"))
        elif not waits:
            self.turns.append((at, f"{subject}: the last parked one is made"))

    def closed_again(self, after: float) -> float | None:
        """Return when the client's circuit was closed, the first time after a time, or None."""
        changes = self.changes_of("client")
        closed = (at for at, state in changes if state is CircuitState.CLOSED and at > after)
        return next(closed, None)

    def changes_of(self, process: str) -> list[tuple[float, CircuitState]]:
        """Return when the circuit of a process went to which state."""
        return [(at, state) for at, of, state in self.changes if of == process]

    @property
    def nothing_waits(self) -> bool:
        """Whether nothing is parked, and every circuit is closed."""
        return (
            not self.payments.waiting
            and not self.orders.waiting
            and all(state is CircuitState.CLOSED for state in self.circuits.values())
        )

    @property
    def all_done(self) -> bool:
        """Whether every payment is answered, every order handled or dead, and nothing is parked."""
        return (
            self.nothing_waits
            and all(made.asked == made.answers.keys() for made in self.requests.values())
            and self.published <= self.orders.handled | self.orders.dead.keys()
        )
