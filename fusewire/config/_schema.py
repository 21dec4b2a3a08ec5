"""The JSON schema of files of our own form, for editors."""

from __future__ import annotations

from typing import Any

from fusewire.config._model import File


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of files of our own form.

    An editor that knows it completes keys and marks mistakes. It knows keys, kinds and single
    values; whether settings fit together, and whether a base exists, :func:`load` finds out.
    """
    schema = File.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return _without_defaults(schema)  # type: ignore[no-any-return] # a mapping stays one


def _without_defaults(value: Any) -> Any:
    """Return a schema without defaults, which depend on bases, and without generated titles."""
    if isinstance(value, list):
        return [_without_defaults(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = value.get("properties", {}).keys()
    kept = {}
    for key, one in value.items():
        if key in ("default", "title") and not isinstance(one, dict):
            continue
        if key == "properties":
            kept[key] = {name: _without_defaults(one[name]) for name in names}
        elif key != "default":
            kept[key] = _without_defaults(one)
    return kept
