"""Header values as JSON, without loss and without pickle.

The values that JSON lacks are tagged: ``{"$bytes": "<base64>"}``, ``{"$datetime": "<ISO 8601>"}``,
``{"$float": "nan"}``. A dictionary that has a key beginning with ``$`` is wrapped as
``{"$dict": {…}}``, so that no user's header reads as a tag.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusewire.brokers.message import HeaderValue


_AS_IT_IS = frozenset({str, int, bool, NoneType})
"""Types of most header values."""


def pack(value: Any, where: str) -> object:
    """Return what `json` can write for `value`, which stands at `where`.

    Raises:
        TypeError: it, or something in it, is no header value; the error names it.
    """
    if value is None or isinstance(value, (str, int)):  # bool is an int
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, list):
        return [pack(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is a {type(key).__name__}; keys are strings")
        packed = {
            key: item if type(item) in _AS_IT_IS else pack(item, f"{where}.{key}")
            for key, item in value.items()
        }
        return {"$dict": packed} if any(key.startswith("$") for key in packed) else packed
    raise TypeError(
        f"{where} holds a {type(value).__name__}, which cannot be stored; "
        "use bool, bytes, datetime, dict, float, int, list, str or None"
    )


def unpack(value: Any) -> HeaderValue:
    """Return the value that :func:`pack` made `value` of.

    Raises:
        ValueError: a tag is damaged.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        plain: HeaderValue = value
        return plain
    match value:
        case {"$bytes": content}:
            return base64.b64decode(content, validate=True)
        case {"$datetime": content}:
            return datetime.fromisoformat(content)
        case {"$float": content}:
            return float(content)
        case {"$dict": content}:
            value = content
    return {key: unpack(item) for key, item in value.items()}
