"""The admission of a call: its permit, or the circuit's refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.errors import CircuitOpenError
from fusewire.operation import current_operation

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker, Permit
    from fusewire.interceptors._policy import MethodPolicy


def take_permit(breaker: CircuitBreaker, policy: MethodPolicy) -> Permit | CircuitOpenError:
    """Take a permit for a call; return the refusal if the circuit does not admit it.

    The refusal is returned, because what the user gets is another error, made from it, which should
    not have it as its context.
    """
    try:
        permit = breaker.acquire(timed=policy.timed)
    except CircuitOpenError as refused:
        return refused
    if getattr(breaker, "durations", None) is not None:  # not all registries give our breakers
        permit.measured_as = (policy.method, current_operation())
    return permit


def waits_for_ready(
    permit: Permit | None,
    timeout: float | None,
    given: bool | None,  # noqa: FBT001 - grpcio's own flag, passed on
) -> bool | None:
    """Return whether a call waits for a connection.

    A channel in reconnect back-off fails calls without trying. So a probe that has a deadline
    waits, unless the user has decided.
    """
    if given is None and timeout is not None and permit is not None and permit.probe:
        return True
    return given
