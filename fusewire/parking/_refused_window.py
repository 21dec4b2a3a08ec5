"""The window of replays that was refused last, and when it may be reached again; no I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.parking._controller_settings import ControllerSettings

_CURVE = 3.0
"""How long a refused window is remembered, in multiples of ``again``."""


class RefusedWindow:
    """The window that was refused last, and CUBIC's curve around it: back, level, beyond."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._window = math.inf
        self._at = 0.0

    def remember(self, window: float, now: float) -> None:
        self._window, self._at = window, now

    def bound(self, now: float) -> float:
        """Return the widest window that the memory allows now."""
        if self._window == math.inf:
            return math.inf
        age = (now - self._at) / self._settings.again
        if age >= _CURVE:
            self._window = math.inf
            return math.inf
        curve = 1 + self._settings.depth * (age - 1) ** 3
        return self._window * max(self._settings.cut, curve)
