"""Prints what files mean in our own form: the way from Spring Boot's files to ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fusewire.config._showing import show_field
from fusewire.config._spring_chain import THEIRS
from fusewire.config._spring_values import SpringClassifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.config._checking import Fields, Origin
    from fusewire.config._config import Config
    from fusewire.config._resolving import CircuitConfig

_BASE = "resilience4j"
_NOT_RECORDED = (
    "exceptions that are neither recorded nor ignored are successes in Spring, and are ignored here"
)
_HIDDEN = "classify_exception"


def to_yaml(config: Config) -> str:
    """Return the breakers of `config` as a file of our own form.

    What :func:`left_out` returns is left out, each with a comment in its place.
    """
    theirs: Fields = {
        name: origin
        for circuit in config.circuits.values()
        for name, origin in circuit.origins.items()
        if origin.place is None and origin.through == THEIRS
    }
    lines = ["fusewire:", "  breakers:"]
    if config.defaults is not None:
        if _judges(config.defaults):
            lines.append(f"    # left out: {_NOT_RECORDED}")
        lines += ["    defaults:", *_rows(_said(config.defaults.origins), "      ")]
    if theirs:
        lines += ["    bases:", f"      {_BASE}:", *_rows(theirs, "        ")]
    lines.append("    circuits:" if config.circuits else "    circuits: {}")
    for circuit in config.circuits.values():
        said = _said(circuit.origins)
        based = bool(theirs) and theirs.keys() <= said.keys()  # else it would set what nobody says
        own = {
            name: origin for name, origin in said.items() if not based or origin != theirs.get(name)
        }
        if circuit.mode is not None:
            own["mode"] = circuit.mode
        rows = [f"        # left out: {_NOT_RECORDED}"] if _judges(circuit) else []
        rows += [f"        base: {_BASE}"] if based else []
        rows += _rows(own, "        ")
        lines += [f"      {_name(circuit.name)}:" + ("" if rows else " {}"), *rows]
    return "\n".join(lines) + "\n"


def left_out(config: Config) -> list[str]:
    """Return what :func:`to_yaml` leaves out, and why.

    Values that came from variables may be secret. And our own form has no function that judges
    exceptions, as Spring Boot files bring one. Readiness is said in code, and what files of our own
    form say of other things than breakers stands there already.
    """
    circuits = [*config.circuits.values(), *([config.defaults] if config.defaults else [])]
    hidden = [
        f"{circuit.name}: {name} ({origin})"
        for circuit in circuits
        for name, origin in circuit.origins.items()
        if origin.place is not None and origin.place.placeholder and name != _HIDDEN
    ]
    judged = [
        f"{circuit.name}: {_NOT_RECORDED}: give classify_exception in code if that is meant "
        f"({circuit.origins[_HIDDEN]})"
        for circuit in circuits
        if _judges(circuit)
    ]
    needs = [
        f"{name}: allowHealthIndicatorToFail: give Health(ready_needs=[{name!r}, …]) in code"
        for name in config.ready_needs
    ]
    others = [
        f"{section}: copy what the files say of the queue {queue!r}"
        for section in ("consumers", "forwarders")
        for queue in getattr(config, section)
    ]
    return hidden + judged + needs + others


def _judges(circuit: CircuitConfig) -> bool:
    """Return whether some exceptions are successes of a circuit: those that it does not record."""
    judge = circuit.settings.classify_exception
    return (
        isinstance(judge, SpringClassifier)
        and judge.record is not None
        and not any(issubclass(Exception, kind) for kind in judge.record)
    )


def _said(origins: Fields) -> Fields:
    """Return what is not the library's own default."""
    return {
        name: origin
        for name, origin in origins.items()
        if (origin.place is not None or origin.through == THEIRS) and name not in _NOT_FIELDS
    }


_NOT_FIELDS = (_HIDDEN, "base", "preset", "mode")


def _rows(fields: Fields, indent: str) -> Iterator[str]:
    for name, origin in fields.items():
        yield indent + _row(name, origin)


def _row(name: str, origin: Origin) -> str:
    if origin.place is not None and origin.place.placeholder:
        return f"# {name}: left out, because it is the value of {origin.place.placeholder}"
    return f"{name}: {show_field(name, origin.value)}"


def _name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)  # a text of JSON is one of YAML
