"""Checks a document of our own form: all its problems, and what is left of it without them."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from fusewire._validation import nearest
from fusewire.config._model import File
from fusewire.config._problems import Place, Problem, shown_remedy, shown_value
from fusewire.config._tree import Row, Table

if TYPE_CHECKING:
    from fusewire.config._tree import Document, Path


class Origin(typing.NamedTuple):
    """A value, and where it comes from.

    Attributes:
        value: the value, as settings have it.
        place: where it is written; None if no file or variable says it.
        through: what it comes through, such as ``"preset critical"``; empty for a value that is
            written itself.
    """

    value: Any
    place: Place | None
    through: str = ""

    def __str__(self) -> str:
        return ", ".join(str(part) for part in (self.place, self.through) if part)


Fields: typing.TypeAlias = dict[str, Origin]
"""The keys of one mapping that were given."""


@dataclass(slots=True)
class Layer:
    """What one document, or several of which later ones count more, say in our own form.

    Attributes:
        defaults: settings of circuits that nothing else says.
        bases: settings to start from, by name.
        circuits: settings by circuit or pattern.
        retry: retry policies, by queue.
        replay: replay policies, by queue.
        forwarders: programs that forward, by queue; keys of keys have dots between them.
        names_at: where circuits, bases and queues are written first, by section and name.
        ready_needs: circuits without which a process is not ready.
        broken: what has problems, by section and name, so that its whole cannot be judged.
    """

    defaults: Fields = field(default_factory=dict)
    bases: dict[str, Fields] = field(default_factory=dict)
    circuits: dict[str, Fields] = field(default_factory=dict)
    retry: dict[str, Fields] = field(default_factory=dict)
    replay: dict[str, Fields] = field(default_factory=dict)
    forwarders: dict[str, Fields] = field(default_factory=dict)
    names_at: dict[tuple[str, str], Place] = field(default_factory=dict)
    ready_needs: dict[str, None] = field(default_factory=dict)
    broken: set[tuple[str, str]] = field(default_factory=set)

    def add(self, later: Layer) -> None:
        """Add a layer that counts more, key by key."""
        self.defaults |= later.defaults
        for name in ("bases", "circuits", "retry", "replay", "forwarders"):
            mine: dict[str, Fields] = getattr(self, name)
            for key, fields in getattr(later, name).items():
                mine[key] = mine.get(key, {}) | fields
        for where, place in later.names_at.items():
            self.names_at.setdefault(where, place)
        self.ready_needs |= later.ready_needs
        self.broken |= later.broken


def check_document(document: Document) -> tuple[Layer, list[Problem]]:
    """Check what a document says in our own form, and return it with all its problems."""
    pruned: Any = {"fusewire": document.root["fusewire"]}
    problems: list[Problem] = []
    layer = Layer()
    while True:
        try:
            model = File.model_validate(pruned)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            paths = [one["loc"] for one in found]
            problems += [_problem(document, one) for one in found]
            layer.broken |= {part for path in paths if (part := _part_of(path)) is not None}
            pruned = _without(pruned, set(paths), ())
        else:
            break
    _take(layer, model, document)
    return layer, problems


def _part_of(path: Path) -> tuple[str, str] | None:
    """Return the section and name that a path is in, None above them."""
    match path:
        case ("fusewire", "breakers", "defaults", *_):
            return ("defaults", "")
        case ("fusewire", "breakers", "bases" | "circuits" as section, name, *_):
            return (str(section), str(name))
        case ("fusewire", "consumers", queue, "retry" | "replay" as part, *_):
            return (str(part), str(queue))
        case ("fusewire", "forwarders", queue, *_):
            return ("forwarders", str(queue))
    return None


def _without(value: Any, paths: set[Path], here: Path) -> Any:
    """Return a copy without what is at these paths."""
    if isinstance(value, dict):
        return {
            key: _without(one, paths, (*here, key))
            for key, one in value.items()
            if (*here, key) not in paths
        }
    if isinstance(value, list):
        return [
            _without(one, paths, (*here, index))
            for index, one in enumerate(value)
            if (*here, index) not in paths
        ]
    return value


def _take(layer: Layer, model: File, document: Document) -> None:
    """Take over what was given."""
    breakers, at = model.fusewire.breakers, ("fusewire", "breakers")
    layer.defaults = _fields(breakers.defaults, document.value((*at, "defaults")))
    for section in ("bases", "circuits"):
        table, fields = document.value((*at, section)), getattr(layer, section)
        if isinstance(table, Table):
            for name, settings in getattr(breakers, section).items():
                fields[name] = _fields(settings, table[name])
                layer.names_at[section, name] = table.key_place(name)
    for queue, consumer in model.fusewire.consumers.items():
        path = ("fusewire", "consumers", queue)
        layer.names_at["consumers", queue] = document.key_place(path)
        layer.retry[queue] = _fields(consumer.retry, document.value((*path, "retry")))
        layer.replay[queue] = _fields(consumer.replay, document.value((*path, "replay")))
    for queue, forwarder in model.fusewire.forwarders.items():
        path = ("fusewire", "forwarders", queue)
        layer.names_at["forwarders", queue] = document.key_place(path)
        layer.forwarders[queue] = _flat_fields(forwarder, document.value(path))


def _flat_fields(model: BaseModel, given: object) -> Fields:
    """Return the keys of a mapping and of those in it: ``tls.ca``, ``methods./a.B/C.window``."""
    fields = _fields(model, given)
    for name, origin in list(fields.items()):
        value, inner = origin.value, given[name] if isinstance(given, Table) else None
        models = {"": value} if isinstance(value, BaseModel) else {}
        if isinstance(value, dict):
            del fields[name]
            for key, one in value.items():
                if isinstance(one, BaseModel):
                    models[f".{key}"] = one
                elif isinstance(inner, Table):
                    fields[f"{name}.{key}"] = Origin(tuple(one), inner.place(key))
        for key, one in models.items():
            table = inner[key[1:]] if key and isinstance(inner, Table) else inner
            place = inner.place(key[1:]) if key and isinstance(inner, Table) else origin.place
            fields[f"{name}{key}"] = Origin(value=True, place=place)
            fields |= {f"{name}{key}.{at}": each for at, each in _fields(one, table).items()}
    return fields


def _fields(model: BaseModel, given: object) -> Fields:
    if not isinstance(given, Table):
        return {}
    fields = {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        if type(value) is list:
            fields[name] = Origin(tuple(value), _place_of_list(given, name))
        else:
            fields[name] = Origin(value, given.place(name))
    return fields


def _place_of_list(table: Table, name: str) -> Place:
    """Return the place of a list; one that holds placeholders is shown by the first."""
    place, value = table.place(name), table[name]
    if isinstance(value, Row) and value.placeholders:
        return Place(
            place.source, place.line, place.column, next(iter(value.placeholders.values()))
        )
    return place


def _problem(document: Document, error: Any) -> Problem:
    """Say in our own words what pydantic found."""
    path: Path = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown_key(document, path)
    place = document.place(path)
    value = shown_value(document.value(path), place)
    if error["type"] == "misread":
        context = error["ctx"]
        remedy = shown_remedy(context["remedy"], place)
        return Problem(place, subject_of(path), context["accepted"], value, remedy)
    if error["type"] == "list_type":
        first = place.placeholder or _first_of(value)
        return Problem(place, subject_of(path), "a list", value, f"write [{first}], with brackets")
    return Problem(
        place,
        subject_of(path),
        "a mapping",
        value,
        "indent its keys below it, or remove it; write {} for none",
    )


def _first_of(value: str) -> str:
    return "…" if value in ("null", "a mapping") else value.strip("'")


def _unknown_key(document: Document, path: Path) -> Problem:
    keys = _keys_at(path[:-1])
    key = str(path[-1])
    near = nearest(key.replace("-", "_"), keys)
    hint = "remove it"
    if key in _FUNCTIONS:
        hint = "give functions in code: a file names none"
    elif near is not None:
        hint = f"did you mean {near}?"
    return Problem(
        document.key_place(path),
        f"a key of {subject_of(path[:-1])}",
        f"one of {', '.join(keys)}",
        key,
        hint,
    )


_FUNCTIONS = ("classify_exception", "classify_result")


def _keys_at(path: Path) -> list[str]:
    """Return the keys that the mapping at `path` may have."""
    kind: Any = File
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(key)].annotation
        else:
            kind = typing.get_args(kind)[-1]
    return list(kind.model_fields)


_NAMED = ("circuits", "bases", "consumers", "forwarders", "lanes", "methods")
"""Mappings whose keys are names of the user's."""


def subject_of(path: Path) -> str:
    """Return how problems name what is at `path`: ``breakers.circuits['/a.B/*'].base``."""
    names = path[1:] if path[:1] == ("fusewire",) else path
    text = ""
    for index, key in enumerate(names):
        is_name = index and names[index - 1] in _NAMED
        if isinstance(key, int):
            text += f"[{key}]"
        elif is_name:
            text += f"[{key!r}]"
        else:
            text += f".{key}" if text else str(key)
    return text or "fusewire"
