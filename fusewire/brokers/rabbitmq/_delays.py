"""Which delay queue a message waits in. A queue has one time to live; delays are any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def tier_for(delay: float, tiers: Sequence[float]) -> float:
    """Return the tier, in seconds, that serves best for `delay`.

    A delay that is a tier is kept. Any other is served by the longest tier that does not overrun it
    by more than the shortest tier: a message that comes back early is delayed again, and to be a
    little late saves the many short hops at the end.

    Args:
        delay: seconds.
        tiers: seconds of the delay queues that there are, growing, at least one.
    """
    if delay in tiers:
        return delay
    shortest = tiers[0]
    return max((tier for tier in tiers if tier <= delay + shortest), default=shortest)
