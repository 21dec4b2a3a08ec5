"""What became of the payments of a run in which everything fails around them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.settling import UNSETTLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.settling import Payment


@dataclass(frozen=True, kw_only=True)
class Records:
    """What the server, the shop and the queues have of payments.

    Attributes:
        ledger: the server's: how often each payment was made.
        payments: the shop's: the status of each.
        outcomes: the shop's: the name, the source, the kind, and whether it is final, of each that
            it learned.
        dead: the calls in the dead queue.
        undelivered: how many outcomes no callback has taken.
        deaths: how often processes died by their own hands, by point.
    """

    ledger: Counter[str]
    payments: dict[Payment, str]
    outcomes: Sequence[tuple[str, str, str, int]] = ()
    dead: set[str] = field(default_factory=set)
    undelivered: int = 0
    deaths: Counter[str] = field(default_factory=Counter)


@dataclass
class Verdict:
    """What became of the payments of a run.

    Attributes:
        figures: how many there were of what.
        missing: of which the shop believes that they were made, and they were not.
        twice: which were made more than once.
        unexplained: which were made, or not, otherwise than the shop was told.
        unsettled: which were accepted, and have neither a final outcome nor a notice.
        two_outcomes: which have two final outcomes that are not equal.
        unnoticed: calls in the dead queue without a notice, and notices without such a call.
    """

    figures: dict[str, Any]
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    two_outcomes: list[str] = field(default_factory=list)
    unnoticed: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What is wrong, by kind; empty where nothing is."""
        return {name: found for name, found in vars(self).items() if found and name != "figures"}

    def __str__(self) -> str:
        counts = {name: len(found) for name, found in vars(self).items() if name != "figures"}
        return json.dumps(self.figures | counts | self.faults, indent=2)


def judge(records: Records) -> Verdict:
    """Compare what the server has done with what the shop was told."""
    finals: defaultdict[str, set[str]] = defaultdict(set)
    notices: defaultdict[str, set[str]] = defaultdict(set)
    for name, _, kind, final in records.outcomes:
        (finals if final else notices)[name].add(kind)
    different = sum(map(len, (*finals.values(), *notices.values())))
    verdict = Verdict(
        {
            "payments": len(records.payments),
            "made": len(records.ledger),
            "ended as": dict(Counter(records.payments.values())),
            "outcomes": dict(Counter(f"{found[1]}: {found[2]}" for found in records.outcomes)),
            "outcomes that came again": len(records.outcomes) - different,
            "notices followed by a final outcome": sum(bool(finals[name]) for name in notices),
            "deaths": dict(sorted(records.deaths.items())),
        }
    )
    for payment, status in records.payments.items():
        name = payment.name
        made = records.ledger[name]
        _compare(verdict, payment, status, made, finals[name])
        if not finals[name] and not notices[name] and (payment.repeatable or status in UNSETTLED):
            verdict.unsettled.append(f"{name}: {status}")
        # A final outcome may follow a notice, or come before one of a copy, where a process died.
        is_dead, noticed = name in records.dead, bool(notices[name])
        if is_dead != noticed and not (noticed and finals[name]):
            verdict.unnoticed.append(f"{name}: {notices[name]}, dead: {is_dead}")
    known = {payment.name for payment in records.payments}
    verdict.unexplained += [f"{name}: made, and nobody's" for name in records.ledger.keys() - known]
    verdict.unnoticed += [f"{name}: dead, and nobody's" for name in records.dead - known]
    verdict.unnoticed += ["an outcome that no callback took"] * records.undelivered
    return verdict


def _compare(verdict: Verdict, payment: Payment, status: str, made: int, told: set[str]) -> None:
    name = payment.name
    if made > 1:
        verdict.twice.append(name)
    if len(told) > 1:
        verdict.two_outcomes.append(f"{name}: {sorted(told)}")
    if "ok charged" in told and not made:
        verdict.missing.append(name)
    if made and (told - {"ok charged"} or status == "not made"):
        verdict.unexplained.append(f"{name}: made, and told {sorted(told) or status}")
    if any(kind.startswith("ok") and kind != f"ok {payment.answer}" for kind in told):
        verdict.unexplained.append(f"{name}: told {sorted(told)}")
