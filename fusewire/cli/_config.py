"""``fusewire config``: checks files of settings, shows what they mean, and converts them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fusewire.cli._exit import fail
from fusewire.cli._output import Format, echo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fusewire.config import Config, Problem

config = typer.Typer(
    name="config",
    help="Check files of settings, show what they mean, and convert Spring Boot's.",
    no_args_is_help=True,
)

_PROBLEMS = 1
_NEEDED = {"pydantic", "yaml"}

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE…", help="Files; later ones count more.")
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="NAME", help="A profile; may be repeated."),
]
JavaOption = Annotated[
    list[str] | None,
    typer.Option(
        "--java-exception",
        metavar="JAVA=PYTHON",
        help="What an exception class of a Spring Boot file is in Python; may be repeated.",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="json is for programs.")]


@config.command()
def check(
    files: FilesArgument,
    *,
    profile: ProfileOption = None,
    java_exception: JavaOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Find all problems of files, and of the variables beside them.

    The application need not be installed. The exit status is 0 if the files can be applied, also
    with warnings; 1 if there are problems; 2 if the check could not run.
    """
    found, problems = _read(files, profile, java_exception)
    if output is Format.JSON:
        typer.echo(json.dumps([_as_json(problem) for problem in problems], indent=2))
    else:
        console = Console()
        for problem in problems:
            echo(console, f"{problem.severity}: {problem}", style=_STYLES[problem.severity])
        counts = [_counted(sum(one.severity == kind for one in problems), kind) for kind in _STYLES]
        echo(console, ", ".join(counts))
    if found is None:
        raise typer.Exit(_PROBLEMS)


@config.command()
def show(
    files: FilesArgument,
    *,
    profile: ProfileOption = None,
    java_exception: JavaOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show every setting that files mean, and where it comes from.

    The last line is the hash of all that, which the metric fusewire_config_hash has where it is
    applied. The exit status is 0, or 1 if there are problems, which are printed instead.
    """
    rows = list(_rows(_read_or_exit(files, profile, java_exception)))
    if output is Format.JSON:
        keys = ("of", "setting", "value", "from")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        return
    console = Console()
    widths = [max((len(row[column]) for row in rows), default=0) for column in (1, 2)]
    before = None
    for of, setting, value, origin in rows:
        if of != before:
            echo(console, of, style="bold")
        before = of
        echo(console, f"  {setting:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip())


@config.command()
def schema() -> None:
    """Print the JSON schema of files, for editors."""
    typer.echo(json.dumps(_room().json_schema(), indent=2, ensure_ascii=False))


@config.command(name="import")
def import_(
    files: FilesArgument,
    *,
    profile: ProfileOption = None,
    java_exception: JavaOption = None,
) -> None:
    """Print what Spring Boot files say of circuit breakers, in our own form.

    What our own form should not or cannot say is left out, with a line on standard error: values
    that came from variables, because they may be secret, that an exception which is not recorded
    is a success, and what is not about breakers. The exit status is 0; 1 if there are problems;
    3 if something was left out.
    """
    room = _room()
    found = _read_or_exit(files, profile, java_exception)
    typer.echo(room.to_yaml(found), nl=False)
    left_out = room.left_out(found)
    for remark in found.remarks:
        typer.echo(f"fusewire config import: {remark.severity}: {remark}", err=True)
    for one in left_out:
        typer.echo(f"fusewire config import: left out: {one}", err=True)
    if left_out:
        raise typer.Exit(_LEFT_OUT)


_LEFT_OUT = 3
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def _room() -> Any:
    """Return what this command takes of the room of settings, which needs an extra."""
    try:
        from fusewire.config import internal  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        fail("config", str(error))
    return internal


def _read(
    files: Sequence[Path], profile: Sequence[str] | None, java: Sequence[str] | None
) -> tuple[Config | None, Sequence[Problem]]:
    """Return what files mean, None if there are problems; and those, or what is remarkable."""
    room = _room()
    from fusewire.config import ConfigError  # noqa: PLC0415 - see _room

    try:
        found: Config = room.read(
            *files, profile=profile or (), java_exceptions=dict(map(_named, java or ()))
        )
    except ConfigError as error:
        return None, error.problems
    return found, found.remarks


def _named(java: str) -> tuple[str, str]:
    """Return a class of Java and what it is in Python."""
    name, _, ours = java.partition("=")
    if not (name and ours):
        fail(
            "config",
            "--java-exception must be JAVA=PYTHON, as in "
            f"com.shop.PaymentException=shop.errors.PaymentError, got {java}",
        )
    return name, ours


def _read_or_exit(
    files: Sequence[Path], profile: Sequence[str] | None, java: Sequence[str] | None
) -> Config:
    found, problems = _read(files, profile, java)
    if found is None:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem}", err=True)
        raise typer.Exit(_PROBLEMS)
    return found


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind}{'' if count == 1 else 's'}"


def _as_json(problem: Problem) -> dict[str, object]:
    found = dataclasses.asdict(problem)
    place = problem.place
    return found | {"place": {"source": place.source, "line": place.line, "column": place.column}}


_NO_SETTINGS = ("base", "preset", "mode", "classify_exception")


def _rows(found: Config) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is set, the setting, its value and where that comes from."""
    circuits = [*([found.defaults] if found.defaults else []), *found.circuits.values()]
    for circuit in circuits:
        origins = {
            name: origin for name, origin in circuit.origins.items() if name not in _NO_SETTINGS
        }
        if circuit.mode is not None:
            origins["mode"] = circuit.mode
        for name, origin in origins.items():
            yield circuit.name, name, _shown(name, origin), str(origin)
    for queue, consumer in found.consumers.items():
        for name, origin in consumer.origins.items():
            yield f"consumer {queue}", name, _shown(name.partition(".")[2], origin), str(origin)
    for queue, forwarder in found.forwarders.items():
        for name, origin in forwarder.origins.items():
            yield f"forwarder {queue}", name, _shown(name, origin), str(origin)
    for name in found.ready_needs:
        yield "ready_needs", name, "", "allowHealthIndicatorToFail"
    yield "files", "hash", _room().hash_of(found), ""


def _shown(name: str, origin: Any) -> str:
    """Return a value as files write it, or the variable that it came from."""
    if origin.place is not None and origin.place.placeholder:
        return str(origin.place.placeholder)
    return str(_room().show_field(name, origin.value))
