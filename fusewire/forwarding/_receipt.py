"""The receipt that the caller of a stored call gets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a call is stored: it exists only after the broker has confirmed it.

    Attributes:
        operation_id: the identity of the operation, which the server will see as its
            ``idempotency-key``; a caller can ask for the outcome by it.
        method: ``/pkg.Service/Method``.
        parked_at: Unix time, in seconds.
    """

    operation_id: str
    method: str
    parked_at: float
