"""The demo's child processes, as the parent starts, reads and ends them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

_END_LIMIT = 8.0  # seconds that a child gets to end after SIGTERM
_LINE_LIMIT = 2**20  # bytes
_PORTS = range(28_000, 32_001)
_LOG_END = 2000  # characters of a log that an error shows


class DemoError(FusewireError):
    """The demo could not be completed. The message says why."""


class Child:
    """A child process that runs a module of this package.

    Args:
        name: what it is called, also in its log's name.
        arguments: the module and its command line.
        directory: where its log is.
        on_line: called with its name and each line that it writes; a line that is not JSON is
            ``{"what": line}``.
        environment: what it gets besides this process's own.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        *,
        directory: Path,
        on_line: Callable[[str, dict[str, Any]], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._log = directory / f"{name}.log"
        self._on_line = on_line
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._to_end = False

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = await _spawn(self._arguments, self._environment, log)
        self._to_end = False
        self._listening = asyncio.create_task(self._listen(self._process))

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(f"{line}\n".encode())

    def check(self) -> None:
        """Raise if it ended unexpectedly.

        Raises:
            DemoError: it did; with the end of its log.
        """
        if self._process is None or self._process.returncode is None or self._to_end:
            return
        log = self._log.read_text(errors="replace")[-_LOG_END:].strip()
        raise DemoError(
            f"the {self.name} process ended by itself, with status {self._process.returncode}:\n"
            f"{log or '(its log is empty)'}"
        )

    async def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        self._to_end = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._gone()

    async def end(self) -> None:
        """Terminate it (SIGTERM), and kill it if it does not end."""
        self._to_end = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self._gone()
        except TimeoutError:
            await self.kill()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._listening is not None:
            await self._listening

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was requested; for the type checker
        async for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # the last line of one that was killed may be cut off
                said = {"what": line.decode(errors="replace").strip()}
            self._on_line(self.name, said)


async def _spawn(
    arguments: list[str], environment: Mapping[str, str], log: IO[bytes]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=environment,
        limit=_LINE_LIMIT,
        # The terminal's Ctrl-C goes to the parent only, which ends its children.
        start_new_session=True,
    )


@asynccontextmanager
async def ended_after(*children: Child) -> AsyncIterator[None]:
    """End the children after the block."""
    try:
        yield
    finally:
        await asyncio.gather(*(child.end() for child in children))


def free_port() -> int:
    """Find a free TCP port on the loopback interface, outside the range of outgoing connections.

    Outside, because a client that keeps dialing a dead server's port from the same range may
    connect to itself in the end; and the server needs its port free when it comes back.

    Raises:
        DemoError: there is none.
    """
    for _ in range(200):
        port = random.randint(_PORTS.start, _PORTS.stop - 1)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoError(
        f"there is no free TCP port between {_PORTS.start} and {_PORTS.stop - 1} on 127.0.0.1"
    )
