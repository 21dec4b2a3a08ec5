"""What the run of :mod:`tests.support.settling_run` finds wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.settling import CHARGE, TRANSFER, Payment
from tests.support.settling_verdict import Records, judge

_CHARGED = Payment("charged-1", CHARGE, submitted=False)
_DECLINED = Payment("declined-2", CHARGE, submitted=False)
_REFUSED = Payment("refused-3", CHARGE, submitted=False)
_DOUBTFUL = Payment("charged-4", TRANSFER, submitted=False)

_RIGHT: dict[str, Any] = {
    "ledger": Counter(["charged-1", "charged-4"]),
    "payments": {
        _CHARGED: "ok charged",
        _DECLINED: "ok declined",
        _REFUSED: "refused",
        _DOUBTFUL: "ambiguous",
    },
    "outcomes": [
        ("charged-1", "outcome", "ok charged", 1),
        ("charged-1", "outcome", "ok charged", 1),
        ("declined-2", "answer", "ok declined", 1),
        ("refused-3", "outcome", "refused", 1),
        ("charged-4", "outcome", "ambiguous", 0),
    ],
    "dead": {"charged-4"},
}


def test_nothing_is_wrong_where_shop_and_server_agree() -> None:
    verdict = judge(Records(**_RIGHT))

    assert not verdict.faults
    assert verdict.figures["outcomes that came again"] == 1


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"ledger": Counter(["charged-4"])}, "missing"),
        ({"ledger": Counter(["charged-1", "charged-1", "charged-4"])}, "twice"),
        ({"ledger": Counter(["charged-1", "charged-4", "refused-3"])}, "unexplained"),
        ({"ledger": Counter(["charged-1", "charged-4", "declined-2"])}, "unexplained"),
        ({"ledger": Counter(["charged-1", "charged-4", "foreign-9"])}, "unexplained"),
        ({"outcomes": _RIGHT["outcomes"][2:]}, "unsettled"),
        (
            {"outcomes": [*_RIGHT["outcomes"], ("declined-2", "outcome", "refused", 1)]},
            "two_outcomes",
        ),
        (
            {"outcomes": [*_RIGHT["outcomes"][:3], *_RIGHT["outcomes"][4:]]},
            "unsettled",
        ),
        ({"dead": {"charged-4", "charged-1"}}, "unnoticed"),
        ({"dead": set()}, "unnoticed"),
        ({"dead": {"charged-4", "foreign-9"}}, "unnoticed"),
        ({"undelivered": 1}, "unnoticed"),
        (
            {
                "payments": {**_RIGHT["payments"], _DOUBTFUL: "not made"},
                "outcomes": _RIGHT["outcomes"][:4],
                "dead": set(),
            },
            "unexplained",
        ),
    ],
)
def test_what_shop_and_server_do_not_agree_about_is_found(
    wrong: dict[str, Any], found: str
) -> None:
    verdict = judge(Records(**{**_RIGHT, **wrong}))

    assert list(verdict.faults) == [found]
