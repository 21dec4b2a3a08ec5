"""The report: what was asked and promised, compared with the server's own records."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fusewire.demo._config import ORDER, Client
from fusewire.demo._figures import Latencies, latencies
from fusewire.demo._judgement import Judgement, Records, charged_twice, judge
from fusewire.demo._slowest import why_slow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.demo._tally import Requests, Tally

_MOST_CODES = 10  # kinds of errors that are listed
_CODE_LENGTH = 300  # characters of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The final figures. Payments and orders are counted by operation id, each once.

    Attributes:
        broker: which kind of broker it was.
        asked: payments that the client requested.
        charged: payments in the server's ledger.
        parked: payments that were parked, at least once.
        replayed: parked payments that were charged later.
        lost: payments answered OK or PENDING that are not in the server's ledger.
        charged_twice: payments charged more than once.
        failed: payments that got an error, or no answer.
        repeated: charges that were requested again, and that the server did not make again.
        orders_asked: orders that were published.
        orders_handled: orders whose handler has succeeded.
        orders_parked: orders that were parked, at least once.
        orders_replayed: parked orders that were handled later.
        orders_lost: orders published that are not in the server's ledger.
        orders_charged_twice: orders charged for more than once.
        latency_ms: how long payments took that were answered OK or PENDING: those requested before
            the server was killed, from then until the client's circuit closed again, and after
            that.
        why_p99: why the slowest payments of the outage took so long, in sentences.
        clients: what became of the payments of this client and of the baselines, by client.
        remarks: other remarks, in sentences.
    """

    broker: str
    asked: int
    charged: int
    parked: int
    replayed: int
    lost: int
    charged_twice: int
    failed: int
    repeated: int
    orders_asked: int
    orders_handled: int
    orders_parked: int
    orders_replayed: int
    orders_lost: int
    orders_charged_twice: int
    latency_ms: dict[str, Latencies]
    why_p99: tuple[str, ...]
    clients: dict[Client, Judgement]
    remarks: tuple[str, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What went wrong, in words; empty if nothing did."""
        wrong = {
            "lost": self.lost,
            "charged twice": self.charged_twice,
            "orders lost": self.orders_lost,
            "orders charged twice": self.orders_charged_twice,
        }
        faults = [f"{what}: {count}" for what, count in wrong.items() if count]
        if self.replayed != self.parked:
            faults.append(f"parked {self.parked}, but replayed {self.replayed}")
        return faults

    def as_json(self) -> dict[str, Any]:
        """Return it as an object for JSON."""
        return asdict(self)


def make_report(
    tally: Tally, records: Records, *, broker: str, outage: tuple[float, float]
) -> Report:
    """Compare what the processes reported with the server's records.

    Args:
        tally: what the processes reported.
        records: what the server's ledger says.
        broker: which kind of broker it was.
        outage: when the server was killed, and when it was back, in seconds since the load began.
    """
    requests = tally.requests[Client.FUSEWIRE]
    payments = records.of(Client.FUSEWIRE.prefix)
    orders = records.of(ORDER)
    ordered = {reference for _, reference in orders}
    promised = {
        (answer.operation_id, reference)
        for reference, answer in requests.answers.items()
        if answer.result != "error"
    }
    killed, _ = outage
    recovered = tally.closed_again(after=killed)
    until_closed = (killed, float("inf") if recovered is None else recovered)
    return Report(
        broker=broker,
        asked=len(requests.asked),
        charged=len({operation for operation, _ in payments}),
        parked=len(tally.payments.parked),
        replayed=len(tally.payments.replayed),
        lost=len(promised - set(payments)),
        charged_twice=charged_twice(payments),
        failed=requests.failed + len(requests.asked - requests.answers.keys()),
        repeated=records.repeated,
        orders_asked=len(tally.published),
        orders_handled=len(tally.orders.handled),
        orders_parked=len(tally.orders.parked),
        orders_replayed=len(tally.orders.replayed),
        orders_lost=len(tally.published - ordered),
        orders_charged_twice=charged_twice(orders),
        latency_ms=_latencies(requests, until_closed),
        why_p99=tuple(
            why_slow(requests.answers.values(), tally.changes_of("client"), until_closed)
        ),
        clients={
            client: judge(made, records.of(client.prefix), outage)
            for client, made in tally.requests.items()
        },
        remarks=tuple(_remarks(tally)),
    )


def _latencies(requests: Requests, outage: tuple[float, float]) -> dict[str, Latencies]:
    phases: dict[str, list[float]] = {"before": [], "during": [], "after": []}
    begin, end = outage
    for answer in requests.answers.values():
        if answer.result == "error":
            continue
        phase = "before" if answer.begin < begin else "during" if answer.begin < end else "after"
        phases[phase].append(answer.took)
    return {phase: latencies(took) for phase, took in phases.items()}


def _remarks(tally: Tally) -> Iterable[str]:
    requests = tally.requests[Client.FUSEWIRE]
    codes = Counter(answer.code for answer in requests.answers.values() if answer.result == "error")
    for code, count in codes.most_common(_MOST_CODES):
        yield f"payments that failed with {code[:_CODE_LENGTH]}: {count}"
    unanswered = len(requests.asked - requests.answers.keys())
    if unanswered:
        yield f"payments without an answer: {unanswered}"
    for name, outcomes in (("payments", tally.payments), ("orders", tally.orders)):
        if outcomes.waiting:
            yield f"{name} still parked: {len(outcomes.waiting)}"
        for reason, count in Counter(outcomes.dead.values()).items():
            yield f"{name} in the dead queue as {reason}: {count}"
