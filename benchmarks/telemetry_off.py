"""Consuming with telemetry off, next to the same code without the hooks of telemetry.

What is taken out for the comparison are the statements of a consumed message's way that are there
for telemetry only, from the code as it is, each time that this runs:

- the span of a message (`_tracing`, `span`): begun with the handler's call, which has a context for
  what it calls, and ended with the settlement;
- the event of a settlement for those who listen (`listeners`), as all exporters do;
- the count of redeliveries (`faults`).

Logs stay, since they are on by default; and the seconds that a handler takes, by which replays are
paced. The circuit is closed and the handler does nothing, so that nothing hides what the hooks
cost; the broker is the one in memory, which takes least.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import gc
import inspect
import logging
import textwrap
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message
from fusewire.parking import ParkingConsumer, _consumer, _parts
from fusewire.parking._attempt import AttemptSequence
from fusewire.parking._settlements import Settlements
from fusewire.parking._settler import Settler
from fusewire.testing import InMemoryBroker

if TYPE_CHECKING:
    from types import FunctionType, ModuleType

HOOKS = frozenset({"_tracing", "span", "listeners", "faults"})
WAY = {
    (_parts, AttemptSequence): ("_call",),
    (_parts, Settler): ("open", "settle", "_until_settled"),
    (_consumer, Settlements): ("settled",),
}
"""The functions on a message's way that have hooks, by their classes and where these are used."""


class _Unhooked(ast.NodeTransformer):
    """Takes out the statements that have to do with hooks.

    Attributes:
        taken: how many it has taken out.
    """

    taken = 0

    def visit_With(self, node: ast.With) -> Any:
        """Leave the body of a block without the hook's context."""
        self.generic_visit(node)
        node.items = [item for item in node.items if not self._takes(item.context_expr)]
        return node if node.items else node.body

    def visit_If(self, node: ast.If) -> Any:
        """Take out what is done if a hook is used."""
        return None if self._takes(node.test) else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Take out a call of a hook."""
        return None if self._takes(node) else node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        """Take out a count."""
        return None if self._takes(node) else node

    def _takes(self, node: ast.AST) -> bool:
        found = any(
            isinstance(each, ast.Attribute) and each.attr in HOOKS for each in ast.walk(node)
        )
        self.taken += found
        return found


def without_hooks(function: FunctionType) -> FunctionType:
    """Return `function` without the statements that have to do with hooks.

    Raises:
        ValueError: it has none.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    unhooked = _Unhooked()
    unhooked.visit(tree)
    if not unhooked.taken:
        raise ValueError(f"{function.__qualname__} has no hooks")
    ast.fix_missing_locations(tree)
    flags = __future__.annotations.compiler_flag
    made: dict[str, Any] = {}
    exec(  # noqa: S102 - our own code
        compile(tree, inspect.getfile(function), "exec", flags=flags), function.__globals__, made
    )
    return made[function.__name__]  # type: ignore[no-any-return]


def bare_classes() -> list[tuple[ModuleType, str, type]]:
    """Return classes without hooks, and where to put them under which names."""
    return [
        (
            module,
            hooked.__name__,
            type(hooked.__name__, (hooked,), {n: without_hooks(vars(hooked)[n]) for n in names}),
        )
        for (module, hooked), names in WAY.items()
    ]


async def _consume(messages: int) -> float:
    """Return the seconds of this process that a message takes."""
    handled, begin, end = 0, 0.0, 0.0
    done = asyncio.Event()

    async def handle(_message: object) -> None:
        nonlocal handled, begin, end
        handled += 1
        if handled == 1:
            begin = time.process_time()
        elif handled == messages:
            end = time.process_time()
            done.set()

    async with InMemoryBroker() as broker:
        await broker.create_queue("orders")
        for number in range(messages):
            await broker.publish("orders", Message(body=b"", message_id=str(number)))
        consumer = ParkingConsumer(
            broker,
            queue="orders",
            handler=handle,
            depends_on="payments",
            registry=BreakerRegistry(),
            concurrency=50,
        )
        async with consumer:
            gc.collect()
            running = asyncio.create_task(consumer.run(handle_signals=False))
            await done.wait()
            consumer.stop()
            await running
        broker.clear()
    return (end - begin) / (messages - 1)


def consuming(rounds: int, messages: int) -> list[tuple[float, float]]:
    """Return the seconds of a message with telemetry off, and without its hooks, in turns."""
    classes = bare_classes()

    def off() -> float:
        return asyncio.run(_consume(messages))

    def bare() -> float:
        with ExitStack() as stack:
            for patch in classes:
                stack.enter_context(mock.patch.object(*patch))
            return off()

    # Nobody reads that the broker in memory is not durable.
    logging.getLogger("fusewire.parking").addHandler(logging.NullHandler())
    bare(), off()  # not counted: it warms up
    found = []
    for number in range(rounds):
        first, second = (off, bare) if number % 2 else (bare, off)
        times = {first: first(), second: second()}
        found.append((times[off], times[bare]))
    return found
