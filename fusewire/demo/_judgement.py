"""What became of each client's payments, judged by the server's own records."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.demo._figures import Latencies, latencies
from fusewire.demo.payments.v1.payments_pb2 import ENTRY_KIND_CHARGE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fusewire.demo._tally import Answer, Requests


@dataclass(frozen=True, slots=True)
class Records:
    """What the server's ledger says.

    Attributes:
        charges: operation id and reference of every charge.
        repeated: charges that were requested again, recognized, and not made again.
    """

    charges: tuple[tuple[str, str], ...]
    repeated: int = 0

    def of(self, prefix: str) -> list[tuple[str, str]]:
        """Return the charges whose references begin with `prefix`."""
        return [charge for charge in self.charges if charge[1].startswith(prefix)]


def read_records(path: Path) -> Records:
    """Read the server's ledger from its file."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        charges = db.execute(
            "SELECT operation_id, reference FROM entries WHERE kind = ? ORDER BY seq",
            (ENTRY_KIND_CHARGE,),
        ).fetchall()
        (repeated,) = db.execute(
            "SELECT count(*) FROM repeated WHERE method LIKE '%/Charge'"
        ).fetchone()
    return Records(tuple(charges), repeated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of the payments of one client. The counts add up to `asked`.

    Attributes:
        asked: payments that it requested.
        made: charged once, and the client was answered OK or PENDING.
        lost: not charged, whatever the client was answered.
        in_doubt: charged once, and the client got an error: it cannot know.
        charged_twice: charged more than once, whatever the client was answered.
        later: of `made`, those that were answered PENDING and charged afterwards.
        waited_ms: how long callers waited for an answer, errors included, from the server's death
            until it was back.
    """

    asked: int
    made: int
    lost: int
    in_doubt: int
    charged_twice: int
    later: int
    waited_ms: Latencies


def judge(
    requests: Requests, charges: Iterable[tuple[str, str]], outage: tuple[float, float]
) -> Judgement:
    """Compare what a client was answered with what it was charged.

    Args:
        requests: what it asked for, and what it was answered.
        charges: operation id and reference of each of its charges.
        outage: when the server was killed, and when it was back.
    """
    charged: defaultdict[str, list[str]] = defaultdict(list)
    for operation, reference in charges:
        charged[reference].append(operation)
    ends: Counter[str] = Counter()
    for reference in requests.asked:
        answer = requests.answers.get(reference)
        end = _end_of(answer, charged.get(reference, []))
        ends[end] += 1
        ends["later"] += end == "made" and answer is not None and answer.result == "pending"
    killed, back = outage
    return Judgement(
        asked=len(requests.asked),
        made=ends["made"],
        lost=ends["lost"],
        in_doubt=ends["in doubt"],
        charged_twice=ends["charged twice"],
        later=ends["later"],
        waited_ms=latencies(
            answer.took for answer in requests.answers.values() if killed <= answer.begin < back
        ),
    )


def _end_of(answer: Answer | None, operations: list[str]) -> str:
    if len(operations) > 1:
        return "charged twice"
    if answer is None or answer.result == "error":
        return "in doubt" if operations else "lost"
    # Under another id than promised, the client can never learn what became of its payment.
    return "made" if operations == [answer.operation_id] else "lost"


def charged_twice(charges: Iterable[tuple[str, str]]) -> int:
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
