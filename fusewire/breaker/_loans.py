"""Loans: a call lends its permit to the calls inside it.

A circuit that is met twice in one call path (a decorated function that calls another, a channel
that is guarded twice) counts one call: the outer call lends its permit to the first inner one. A
loan is published in a context variable while the guarded code runs. So it reaches the tasks that
the code starts, and the threads that get its context, but no other code.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeAlias

Loan: TypeAlias = list[Any]
"""``[circuit, the enclosing loan, what is lent]``. Without the last item, its call is over.

It is a list because every call makes one, and a list is cheap. What is lent is a permit, or the
generation of a call that gets a permit only when it lends one."""

LENT = 2
"""The index of what is lent."""

_current: ContextVar[Loan | None] = ContextVar("fusewire_loan", default=None)

current_loan = _current.get
publish = _current.set


def enclosing_loan() -> Loan | None:
    """Return the innermost loan of this context whose call is not over."""
    loan = current_loan()
    while loan is not None and len(loan) == LENT:
        loan = loan[1]
    return loan


def find_loan(circuit: object, loan: Loan | None) -> Loan | None:
    """Return the loan of a call of `circuit`, from `loan` outwards; None if there is none."""
    while loan is not None:
        if loan[0] is circuit and len(loan) > LENT:
            return loan
        loan = loan[1]
    return None


def withdraw(loan: Loan) -> Any:
    """End `loan`, and return what it lent.

    Abandoned code may be closed in another context, whose own loan stays.
    """
    if current_loan() is loan:
        publish(loan[1])
    return loan.pop()
