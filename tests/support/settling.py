"""What the processes of a run share in which everything fails around payments.

The run is `settling_run`; the processes are `settling_server` and `settling_worker`. They share a
page of memory: by how much the clock of each is wrong, and how likely they are to die.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import types
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = Path(__file__).parents[2]

CHARGE = "/test.Payments/Charge"
CHARGE_SOON = "/test.Payments/ChargeSoon"
TRANSFER = "/test.Payments/Transfer"

DELAYS = (0.1, 0.5, 2.0)
OUTCOME_DELAYS = (0.1, 0.5)

UNSETTLED = ("asked", "failed", "pending")
"""Statuses of payments that the shop waits for."""

ROLES = ("shop", "forwarder-1", "forwarder-2", "server")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run.

    Attributes:
        folder: of all its files.
        address: the broker's.
        queue: names the queues.
        target: the server's.
        payments: how many there are.
        rate: how many are asked for in a second.
        open_time: seconds for which circuits stay open.
        seed: of all chances.
    """

    folder: str
    address: str
    queue: str
    target: str
    payments: int
    rate: float
    open_time: float
    seed: int

    def file(self, name: str) -> Path:
        """Return one of its files."""
        return Path(self.folder) / name

    def start(self, role: str, life: int) -> KeptProcess:
        """Start a process: the shop, a forwarder or the server, for the `life`-th time."""
        module = "settling_server" if role == "server" else "settling_worker"
        arguments = [f"tests.support.{module}", json.dumps(asdict(self)), role, str(life)]
        return KeptProcess(
            [sys.executable, "-m", *arguments], cwd=_ROOT, log=self.file(f"{role}.log")
        )


class Payment(NamedTuple):
    """A payment of a run.

    Attributes:
        name: its operation id, which begins with what the server answers.
        method: how it is made. By `CHARGE` the server recognizes keys, and by `CHARGE_SOON` too,
            but it is of no use after a while. By `TRANSFER` it does not: once at most.
        submitted: whether it is queued without an attempt.
    """

    name: str
    method: str
    submitted: bool

    @property
    def answer(self) -> str:
        """What the server answers."""
        return self.name.partition("-")[0]

    @property
    def repeatable(self) -> bool:
        """Whether its shop may ask for it again. One that expires might be told two things."""
        return self.method == CHARGE


def payment(run: Run, number: int) -> Payment:
    """Return a payment of a run."""
    chance = random.Random(f"{run.seed} payment {number}")
    (answer,) = chance.choices(["charged", "declined", "refused"], weights=[8, 1, 1])
    (method,) = chance.choices([CHARGE, CHARGE_SOON, TRANSFER], weights=[8, 1, 1])
    return Payment(f"{answer}-{number}", method, method == CHARGE and chance.random() < 0.1)


class SharedPage:
    """The page of memory that all processes of a run share.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        with run.file("page").open("a+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def danger(self) -> float:
        """The factor of all chances to die; 0 for a calm end."""
        return self._read(len(ROLES))

    @danger.setter
    def danger(self, factor: float) -> None:
        self._write(len(ROLES), factor)

    def set_clock(self, role: str, seconds: float) -> None:
        """Have the clock of a process be wrong by `seconds`."""
        self._write(ROLES.index(role), seconds)

    def clock(self, role: str) -> Callable[[], float]:
        """Return the clock of a process."""
        place, right = ROLES.index(role), time.time
        return lambda: right() + self._read(place)

    def _read(self, place: int) -> float:
        (value,) = struct.unpack_from("d", self._page, 8 * place)
        return float(value)

    def _write(self, place: int, value: float) -> None:
        struct.pack_into("d", self._page, 8 * place, value)


@contextlib.contextmanager
def wrong_clock(clock: Callable[[], float]) -> Iterator[None]:
    """Have what the block imports of fusewire go by `clock`.

    gRPC does not: it makes deadlines of the clock, and has the kernel's wait for them.
    """
    right = time.time
    time.time = clock  # functions keep it as a default
    try:
        yield
    finally:
        time.time = right
    wrong: Any = types.ModuleType("time")
    vars(wrong).update(vars(time), time=clock)
    for name, module in sys.modules.items():
        if name.startswith("fusewire.") and getattr(module, "time", None) is time:
            module.time = wrong  # type: ignore[attr-defined]  # it has one


class Deaths:
    """The deaths of a process by its own hand, at points that no other process could hit.

    Args:
        run: the run.
        role: which process this is.
        life: how often it was started.
        page: says how likely they are.
    """

    def __init__(self, run: Run, role: str, life: int, page: SharedPage) -> None:
        self._role = role
        self._page = page
        self._chance = random.Random(f"{run.seed} {role} {life}")
        self._file = os.open(run.file("deaths"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def happens(self, share: float) -> bool:
        """Return whether something happens that does in `share` of all cases."""
        return self._chance.random() < share * self._page.danger

    def at(self, point: str, share: float) -> None:
        """Die here, in `share` of all cases."""
        if self.happens(share):
            os.write(self._file, f"{self._role.partition('-')[0]}, {point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


def parse(argv: list[str]) -> tuple[Run, str, int]:
    """Return what :meth:`Run.start` has given to its process."""
    return Run(**json.loads(argv[1])), argv[2], int(argv[3])
