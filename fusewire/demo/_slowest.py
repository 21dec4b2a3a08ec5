"""Why the slowest payments of an outage took as long as they did."""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState
from fusewire.demo._config import CALL_TIMEOUT, SETTINGS
from fusewire.demo._figures import in_words, percentile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fusewire.demo._tally import Answer

_LAG = 0.1  # seconds from a probe's request until the half-open state that it causes is reported
_WAITED = 0.9 * CALL_TIMEOUT  # seconds after which a probe has waited for its deadline


class _Kind(StrEnum):
    """What became of a slow payment, as far as the state of the circuit and its time say."""

    PROBE = (
        "{who} were asked for while the circuit was half open: they were probes, because no stored "
        "payment was there to be one. At most "
        f"{SETTINGS.half_open_max_calls} calls at a time are let through to find out whether the "
        "server is back, and a probe waits for a connection as long as its deadline allows, "
        f"{CALL_TIMEOUT:g} s. Then it is stored as well."
    )
    HALF_OPEN = (
        "{who} were asked for while the circuit was half open, and did not wait for a deadline: "
        "they were stored at once, because stored payments are the probes, or were probes that "
        "failed sooner. What took time is to store them on a busy machine."
    )
    SENT = (
        "{who} were asked for while the circuit was closed: they were sent, failed, and were then "
        "stored."
    )
    REJECTED = (
        "{who} were asked for while the circuit was open: they were not sent. What took time is to "
        "store them on a busy machine."
    )


def why_slow(
    answers: Iterable[Answer],
    changes: Sequence[tuple[float, CircuitState]],
    outage: tuple[float, float],
) -> list[str]:
    """Return in sentences why the 99th percentile of an outage is what it is.

    Args:
        answers: how payments were answered.
        changes: when the circuit went to which state.
        outage: when it began and ended.
    """
    begin, end = outage
    during = sorted(
        (answer for answer in answers if begin <= answer.begin < end and answer.result != "error"),
        key=lambda answer: answer.took,
    )
    if not during:
        return []
    usual, at_least = (percentile((one.took for one in during), share) for share in (0.5, 0.99))
    slowest = during[math.ceil(len(during) * 0.99) - 1 :]
    kinds = Counter(_kind_of(answer, changes) for answer in slowest)
    figures = (
        f"Half of the {len(during)} payments of the outage were answered within "
        f"{in_words(usual)}: the open circuit rejects the call at once, and what takes "
        f"time is to store it durably. The slowest {len(slowest)} took "
        f"{in_words(at_least)} or more."
    )
    return [
        figures,
        *(kind.format(who=_who(count, len(slowest))) for kind, count in kinds.most_common()),
    ]


def _kind_of(answer: Answer, changes: Sequence[tuple[float, CircuitState]]) -> _Kind:
    if _state_at(changes, answer.begin) is CircuitState.CLOSED:
        return _Kind.SENT
    if _state_at(changes, answer.begin + _LAG) is not CircuitState.HALF_OPEN:
        return _Kind.REJECTED
    return _Kind.PROBE if answer.took >= _WAITED else _Kind.HALF_OPEN


def _who(count: int, of: int) -> str:
    return f"{count} of these {of}" if count < of else f"All {of}"


def _state_at(changes: Sequence[tuple[float, CircuitState]], at: float) -> CircuitState:
    state = CircuitState.CLOSED
    for changed, new in changes:
        if changed > at:
            break
        state = new
    return state
