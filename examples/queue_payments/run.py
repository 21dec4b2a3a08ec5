"""Run a shop, a forwarder and a payments server through an outage, and say what became of orders.

``python run.py`` needs no broker: charges wait in a file of SQLite. ``--broker amqp://…`` has them
wait in RabbitMQ, in queues named ``charges…``. The exit status is 0 if each order ended as it had
to, by the server's own ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds for each wait
CHEAP, TOO_EXPENSIVE = 995, 250_000  # in cents


class Programs:
    """The three programs.

    Args:
        folder: of their files.
        broker: where charges wait.
        ports: of the server and of the shop.
    """

    def __init__(self, folder: Path, broker: str, ports: tuple[int, int]) -> None:
        (server, shop) = ports
        self.ledger = folder / "ledger.db"
        self.shop = f"http://127.0.0.1:{shop}"
        self._folder = folder
        fusewire = str(Path(sys.executable).with_name("fusewire"))
        uvicorn = [sys.executable, "-m", "uvicorn"]
        self._environment = os.environ | {
            "PAYMENTS": f"127.0.0.1:{server}",
            "BROKER": broker,
            "ORDERS": str(folder / "orders.db"),
        }
        self._commands = {
            "server": [sys.executable, "server.py", str(server), str(self.ledger)],
            "forwarder": [fusewire, "forward", "forwarder.yaml", "--queue", "charges"],
            "shop": [*uvicorn, "shop:app", "--port", str(shop), "--log-level", "warning"],
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - the commands are above
                self._commands[name], cwd=HERE, env=self._environment, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """End one at once, as a power cut would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End what runs."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()

    def logs(self) -> str:
        """Return what the programs have written."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(f"{file.name}:\n{file.read_text()}" for file in files)

    def order(self, amount_cents: int) -> None:
        """Be a customer."""
        body = json.dumps({"amount_cents": amount_cents}).encode()
        self._ask(body)

    def orders(self) -> list[dict[str, Any]]:
        """Return the shop's own table."""
        found: list[dict[str, Any]] = self._ask()
        return found

    def charges(self) -> Counter[str]:
        """Return how often the server has charged for each order, by its own ledger."""
        with closing(sqlite3.connect(self.ledger)) as ledger:
            return Counter(name for (name,) in ledger.execute("SELECT reference FROM charges"))

    def wait_for_shop(self) -> None:
        """Wait until the shop answers."""
        self._wait(lambda: True)

    def wait_for_outcomes(self) -> None:
        """Wait until nothing is pending."""
        self._wait(lambda: all(order["status"] != "PENDING" for order in self.orders()))

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and not any(map(_has_ended, self._running.values())):
            with suppress(urllib.error.URLError):  # it does not listen yet
                self.orders()
                if done():
                    return
            time.sleep(0.1)
        raise RuntimeError(f"it did not work; what the programs say:\n{self.logs()}")

    def _ask(self, body: bytes | None = None) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.shop}/orders", body, headers)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:  # noqa: S310 - ours
            return json.load(answer)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def main() -> None:
    """Run it all, and compare the shop's table with the server's ledger."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--broker", help="an address of RabbitMQ; by default a file of SQLite")
    options.add_argument("--ports", type=int, nargs=2, default=(50051, 8080))
    given = options.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = given.broker or f"sqlite:///{folder}/broker.db"
        programs = stack.enter_context(closing(Programs(folder, broker, tuple(given.ports))))
        for name in ("server", "forwarder", "shop"):
            programs.start(name)
        programs.wait_for_shop()
        _order(programs, "The payments server is up.", [CHEAP, TOO_EXPENSIVE])
        programs.kill("server")
        _order(programs, "It is down.", [CHEAP, TOO_EXPENSIVE, CHEAP])
        programs.start("server")
        programs.wait_for_outcomes()
        _order(programs, "It is back, and what waited was made.", [])
        sys.exit(_verdict(programs))


def _order(programs: Programs, what: str, amounts: list[int]) -> None:
    for amount in amounts:
        programs.order(amount)
    print(what)
    for number, order in enumerate(programs.orders(), 1):
        print(f"  order {number}: {order['amount_cents'] / 100:8.2f} EUR  {order['status']}")
    sys.stdout.flush()


def _verdict(programs: Programs) -> str | None:
    charges = programs.charges()
    for order in programs.orders():
        right = "CHARGED" if order["amount_cents"] == CHEAP else "DECLINED"
        if order["status"] != right or charges[order["key"]] != (right == "CHARGED"):
            return f"wrong: {order}, charged {charges[order['key']]} times by the ledger"
    print("By the server's ledger, each order that is CHARGED was charged once, and no other was.")
    return None


if __name__ == "__main__":
    main()
