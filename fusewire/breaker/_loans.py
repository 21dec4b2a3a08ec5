"""What a call of this context lends to the calls within it: its permit.

A circuit that is met twice in one call path (a decorated function that calls another, a channel
that is guarded twice) is one call: the outer call lends its permit to the first inner one. A loan
is published in a context variable, only while control is inside the guarded code. So it reaches
the tasks, and the threads given this context, that the code starts, and nobody else.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeAlias

Loan: TypeAlias = list[Any]
"""``[circuit, the loan around it, what is lent]``; without the last, its call is over.

A list, because it is made for each call. What is lent is a permit, or the generation of a call
that has none until it lends it."""

LENT = 2
"""The index of what is lent."""

_current: ContextVar[Loan | None] = ContextVar("fusewire_loan", default=None)

current_loan = _current.get
publish = _current.set


def enclosing_loan() -> Loan | None:
    """Return the innermost loan of this context whose call goes on."""
    loan = current_loan()
    while loan is not None and len(loan) == LENT:
        loan = loan[1]
    return loan


def find_loan(circuit: object, loan: Loan | None) -> Loan | None:
    """Find what a call of `circuit` lends, from `loan` outwards; None if there is none."""
    while loan is not None:
        if loan[0] is circuit and len(loan) > LENT:
            return loan
        loan = loan[1]
    return None


def withdraw(loan: Loan) -> Any:
    """End `loan`, and return what was lent by it.

    Code that is abandoned may be closed in any context, whose own loan is then left alone.
    """
    if current_loan() is loan:
        publish(loan[1])
    return loan.pop()
