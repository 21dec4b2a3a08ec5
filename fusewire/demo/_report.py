"""The report: what was asked and promised, compared with the server's own records."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fusewire.demo._config import ORDER, PAYMENT
from fusewire.demo._tally import Tally, percentile
from fusewire.demo.payments.v1.payments_pb2 import ENTRY_KIND_CHARGE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Records:
    """What the server's ledger says.

    Attributes:
        charges: operation id and reference of every charge.
        repeated: charges that were requested again, recognized, and not made again.
    """

    charges: tuple[tuple[str, str], ...]
    repeated: int = 0


def read_records(path: Path) -> Records:
    """Read the server's ledger from its file."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        charges = db.execute(
            "SELECT operation_id, reference FROM entries WHERE kind = ? ORDER BY seq",
            (ENTRY_KIND_CHARGE,),
        ).fetchall()
        (repeated,) = db.execute(
            "SELECT count(*) FROM attempts WHERE method = 'Charge' AND came_to = 'repeated'"
        ).fetchone()
    return Records(tuple(charges), repeated)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of payments that were answered OK or PENDING, in milliseconds; None without any."""

    p50: float | None
    p99: float | None


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
        orders_lost: orders published that are not in the server's ledger.
        orders_charged_twice: orders charged for more than once.
        latency_ms: how long payments took: those requested before the server was killed, from then
            until the client's circuit closed again, and after that.
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
    orders_lost: int
    orders_charged_twice: int
    latency_ms: dict[str, Latencies]
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
    tally: Tally, records: Records, *, broker: str, killed: float, recovered: float | None
) -> Report:
    """Compare what the processes reported with the server's records.

    Args:
        tally: what the processes reported.
        records: what the server's ledger says.
        broker: which kind of broker it was.
        killed: when the server was killed, in monotonic seconds.
        recovered: when the client's circuit closed again; None if it never did.
    """
    payments = [charge for charge in records.charges if charge[1].startswith(PAYMENT)]
    orders = [charge for charge in records.charges if charge[1].startswith(ORDER)]
    ordered = {reference for _, reference in orders}
    promised = {
        (answer.operation_id, reference)
        for reference, answer in tally.answers.items()
        if answer.result != "error"
    }
    return Report(
        broker=broker,
        asked=len(tally.asked),
        charged=len({operation for operation, _ in payments}),
        parked=len(tally.payments.parked),
        replayed=len(tally.payments.replayed),
        lost=len(promised - set(payments)),
        charged_twice=_more_than_once(payments),
        failed=len(tally.asked) - tally.results("ok") - tally.results("pending"),
        repeated=records.repeated,
        orders_asked=len(tally.published),
        orders_handled=len(tally.orders.handled),
        orders_parked=len(tally.orders.parked),
        orders_lost=len(tally.published - ordered),
        orders_charged_twice=_more_than_once(orders),
        latency_ms=_latencies(tally, killed, recovered),
        remarks=tuple(_remarks(tally)),
    )


def _more_than_once(charges: Iterable[tuple[str, str]]) -> int:
    """Count what was charged twice: under one operation id, or one reference under several."""
    charges = list(charges)
    by_operation = Counter(operation for operation, _ in charges)
    by_reference = Counter(reference for _, reference in charges)
    return len(
        {
            reference
            for operation, reference in charges
            if by_operation[operation] > 1 or by_reference[reference] > 1
        }
    )


def _latencies(tally: Tally, killed: float, recovered: float | None) -> dict[str, Latencies]:
    phases: dict[str, list[float]] = {"before": [], "during": [], "after": []}
    for answer in tally.answers.values():
        if answer.result == "error":
            continue
        late = recovered is not None and answer.begin >= recovered
        phase = "before" if answer.begin < killed else "after" if late else "during"
        phases[phase].append(answer.took * 1000)
    return {
        phase: Latencies(_rounded(percentile(took, 0.5)), _rounded(percentile(took, 0.99)))
        for phase, took in phases.items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _remarks(tally: Tally) -> Iterable[str]:
    codes = Counter(answer.code for answer in tally.answers.values() if answer.result == "error")
    for code, count in codes.most_common():
        yield f"payments that failed with {code}: {count}"
    unanswered = len(tally.asked - tally.answers.keys())
    if unanswered:
        yield f"payments without an answer: {unanswered}"
    for name, outcomes in (("payments", tally.payments), ("orders", tally.orders)):
        if outcomes.waiting:
            yield f"{name} still parked: {len(outcomes.waiting)}"
        for reason, count in Counter(outcomes.dead.values()).items():
            yield f"{name} in the dead queue as {reason}: {count}"
