"""What other rooms take of the breakers, besides their public names.

:mod:`fusewire.interceptors` takes the hint for what is not settings, and the error of a rejection.
``fusewire.config`` takes the rules for settings, so that those of files are the same, and what a
registry takes from it.
"""

from fusewire.breaker._layer import SetMode, SettingsLayer
from fusewire.breaker._patterns import Patterns
from fusewire.breaker._rejecting import rejection
from fusewire.breaker._settings import (
    LIKE_MILLISECONDS,
    MAX_LIKELY_SECONDS,
    conflicts,
    looks_like_milliseconds,
    settings_hint,
)

__all__ = [
    "LIKE_MILLISECONDS",
    "MAX_LIKELY_SECONDS",
    "Patterns",
    "SetMode",
    "SettingsLayer",
    "conflicts",
    "looks_like_milliseconds",
    "rejection",
    "settings_hint",
]
