"""Kills a process at a chosen ``await`` of a module's source, at a chosen time.

The awaits are found in the source. In the process to be killed, the modules are imported with every
``await x`` rewritten to ``await watched(point, x)``: all else, line numbers included, is as it was.
"""

from __future__ import annotations

import ast
import builtins
import os
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from types import CodeType, ModuleType

_WATCHED = "__fusewire_watched__"
"""The name of :func:`_watched` among the builtins, where rewritten modules find it."""


class Side(StrEnum):
    """Before an await: what is awaited has not begun. After it: it has ended or failed."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, order=True)
class Await:
    """One ``await`` in the source.

    Attributes:
        module: the module's full name.
        line: its line, from 1.
        column: its column, from 0.
        function: the qualified name of the function that it is in.
    """

    module: str
    line: int
    column: int
    function: str

    @property
    def place(self) -> str:
        """Its place as text: ``module:line:column``."""
        return f"{self.module}:{self.line}:{self.column}"


def find_awaits(module: str, source: str) -> list[Await]:
    """Find all awaits of a module's source, in their order there."""
    found: list[Await] = []

    def walk(node: ast.AST, within: tuple[str, ...]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            within = (*within, node.name)
        elif isinstance(node, ast.Await):
            found.append(Await(module, node.lineno, node.col_offset, ".".join(within)))
        for child in ast.iter_child_nodes(node):
            walk(child, within)

    walk(ast.parse(source), ())
    return sorted(found)


class _Rewrite(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self._module = module

    def visit_Await(self, node: ast.Await) -> ast.Await:
        self.generic_visit(node)
        place = f"{self._module}:{node.lineno}:{node.col_offset}"
        call = ast.Call(ast.Name(_WATCHED, ast.Load()), [ast.Constant(place), node.value], [])
        ast.copy_location(call, node.value)
        node.value = ast.fix_missing_locations(call)
        return node


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Never from or to the cache of compiled modules: others import the same files as they are.
        path = self.get_filename(fullname)
        tree = _Rewrite(fullname).visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, modules: Collection[str]) -> None:
        self._modules = frozenset(modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


@dataclass(slots=True)
class _Plan:
    """What happens at which hit."""

    place: str = ""
    side: Side = Side.BEFORE
    hits_left: int = 0
    strike: Callable[[], object] = lambda: None


_plan = _Plan()


def watch(modules: Collection[str]) -> None:
    """Watch the awaits of `modules`. Call this before any of them is imported.

    Raises:
        RuntimeError: one of them is imported already, and cannot be watched any more.
    """
    already = sorted(set(modules) & set(sys.modules))
    if already:
        raise RuntimeError(f"{', '.join(already)} is imported already: watch it before that")
    setattr(builtins, _WATCHED, _watched)
    sys.meta_path.insert(0, _Finder(modules))


def die() -> None:
    """Kill this process (SIGKILL): nothing else of it runs, no ``finally``, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, side: Side, *, hit: int = 1, strike: Callable[[], object] = die) -> None:
    """Strike when the await at `place` is reached for the `hit`-th time from now.

    Args:
        place: ``module:line:column``, as :attr:`Await.place` gives it.
        side: before or after the await.
        hit: the how-manieth time, from 1.
        strike: what to do there: SIGKILL to this process.
    """
    _plan.place, _plan.side, _plan.hits_left, _plan.strike = place, side, hit, strike


def disarm() -> None:
    """Disarm: nothing strikes any more."""
    _plan.hits_left = 0


def _hit(place: str, side: Side) -> None:
    if _plan.hits_left and _plan.place == place and _plan.side is side:
        _plan.hits_left -= 1
        if not _plan.hits_left:
            _plan.strike()


async def _watched(place: str, awaitable: Awaitable[Any]) -> Any:
    _hit(place, Side.BEFORE)
    try:
        return await awaitable
    finally:
        _hit(place, Side.AFTER)


def awaits_of(modules: Collection[str], root: Path | None = None) -> list[Await]:
    """Find all awaits of modules by their names, without importing any.

    Args:
        modules: full names, for example ``fusewire.parking._settler``.
        root: the folder that the top package is in; the one of Fusewire by default.

    Raises:
        FileNotFoundError: there is no such module.
    """
    root = root or Path(__file__).parents[3]
    return [
        found
        for module in modules
        for found in find_awaits(
            module, root.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
        )
    ]
