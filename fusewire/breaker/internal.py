"""What :mod:`fusewire.interceptors` takes of the breakers, besides their public names."""

from fusewire.breaker._settings import settings_hint

__all__ = ["settings_hint"]
