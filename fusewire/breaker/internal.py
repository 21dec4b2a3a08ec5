"""What other rooms take of the breakers, besides their public names.

:mod:`fusewire.interceptors` takes the hint for what is not settings, and ``fusewire.config`` the
rules for settings, so that those of files are the same.
"""

from fusewire.breaker._settings import (
    LIKE_MILLISECONDS,
    MAX_LIKELY_SECONDS,
    conflicts,
    settings_hint,
)

__all__ = ["LIKE_MILLISECONDS", "MAX_LIKELY_SECONDS", "conflicts", "settings_hint"]
