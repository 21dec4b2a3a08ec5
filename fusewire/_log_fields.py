"""The fields of log records, for programs that read the log.

Formatters of JSON find them: python-json-logger by itself, structlog by its
``ExtraAdder``. Their names are public, and ``docs/logs.md`` lists them; the texts are for people.
"""

from __future__ import annotations

PREFIX = "fusewire_"


def fields(event: str, **values: float | str | None) -> dict[str, float | str]:
    """Return what a log call takes as its `extra`.

    Never what a message, a call or a header holds, except an operation id; never the text of an
    error, which may quote any of that.

    Args:
        event: what happened, ``circuit.opened`` for example: the field ``fusewire_event``.
        values: the other fields, whose names get the prefix. One that is None is left out.
    """
    extra: dict[str, float | str] = {f"{PREFIX}event": event}
    for name, value in values.items():
        if value is not None:
            extra[PREFIX + name] = value
    return extra
