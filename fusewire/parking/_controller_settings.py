"""The parameters of the replay controller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """How a replay finds the spare capacity of its dependency.

    Users set `most` and `down`, by :class:`~fusewire.parking.ReplayPolicy`. The other values were
    chosen in the simulation of ``make recovery``, from one replica to a thousand; the sources named
    here are where the idea comes from. "Of the fleet" means of all replicas that take part,
    combined: each takes its share of it.

    Attributes:
        start: replays in flight, of the fleet, when a recovery begins.
        few: replicas that take part when a recovery begins. Calls made before the first answer are
            made blindly, so only a few replicas make them.
        doubling: seconds until twice as many replicas take part.
        late: replays in flight, of those replicas combined that join while the number doubles.
            They find a fleet that already uses the spare capacity.
        most: replays in flight of this replica, at most; ``ReplayPolicy.concurrency``.
        floor: replays in flight, of the fleet, at least: a recovery has to be noticed. Windows
            below one call are paced (Swift, SIGCOMM 2020).
        gain_max: share by which the window grows in a round trip while all is well; 1 doubles it.
        gain_min: the same at the limit.
        gain_up: factor of the gain per good replay, for a window of one.
        gain_down: factor of the gain per slow replay, for a window of one. With `gain_up` it is in
            balance when 21 % of the replays are slow.
        down: weight of a slow replay against a good one; ``ReplayPolicy.yields``. At 0.75 the
            window is in balance when 57 % of the replays are slow. More is gentler to live calls.
        cut: factor of the window on a refusal or a missed deadline, once in a round trip.
        depth: how far below and above a refused window its curve goes, as a share of that window
            (CUBIC, RFC 9438).
        again: seconds after a refusal until the window is as wide as the refused one again. The
            curve ends after three times as many.
        theta: exponent by which narrow windows grow faster than wide ones (Swift).
        fair: the slowest growth by `theta`, as a factor; the fastest is its inverse.
        quiet: replays in flight, of the fleet, that make no queue. Up to here the reference may be
            learnt, because a slow replay is then slow by itself.
        relearn: multiple of the live reference up to which it may be learnt: replays may be
            heavier than live calls, but a reference that follows the load drifts away.
        unmeasured: replays whose mean gives the reference when no live call was measured.
        first_guess: seconds taken for a round trip before anything was measured.
    """

    start: float = 2.0
    few: float = 8.0
    doubling: float = 30.0
    late: float = 0.1
    most: int = 64
    floor: float = 0.05
    gain_max: float = 1.0
    gain_min: float = 0.05
    gain_up: float = 1.1
    gain_down: float = 0.7
    down: float = 0.75
    cut: float = 0.5
    depth: float = 0.3
    again: float = 10.0
    theta: float = 0.25
    fair: float = 0.7
    quiet: float = 2.0
    relearn: float = 3.0
    unmeasured: int = 20
    first_guess: float = 0.1
