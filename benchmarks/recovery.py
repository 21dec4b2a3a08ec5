"""What a recovery costs live traffic: a backlog replayed into a server that can take only so much.

A payments server makes 200 calls a second, four at a time, and queues 32. A third of that is live
traffic, from a process of its own. The server is killed, 4,000 messages park, the server comes
back, and replicas with the defaults replay what has parked, as processes of their own, on a real
RabbitMQ: a private node of the benchmark's, or the one at ``--address``.

In each cell of the table the codes take turns, in an order that changes from run to run: the one
under test, the same with scope ``cluster``, and with ``--former`` the one of another checkout,
which has its environment in ``.venv``. The medians of the runs are shown.

    python -m benchmarks.recovery --replicas 1,8,16 --runs 3 --former ../former
    python -m benchmarks.recovery --replicas 8 --upheaval
    python -m benchmarks.recovery --backlog 200000

With ``--upheaval`` half of the replicas are killed 10 s after the first probe, and as many as there
were at first begin 10 s later. With ``--backlog`` so many messages are parked, and for
``--seconds`` it is watched what the replicas hold of them.

The table, all figures and the curves go to ``build``. It exits with 1 if a target is missed.

Two cores are enough if nothing else runs on them. How late the server's event loop was, and how
busy the machine, stands beside the figures. On a machine with other work, as root on Linux,
``chrt --rr 1`` in front of the command gives the run's processes precedence.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.rabbitmq import node, private_node
from benchmarks.recovery_backlog import MEBIBYTE, Watch, growth
from benchmarks.recovery_backlog import table as backlog_table
from benchmarks.recovery_curves import picture
from benchmarks.recovery_figures import curves, figures
from benchmarks.recovery_report import BEYOND, Result, by_case, misses, table
from benchmarks.recovery_run import nothing, run
from benchmarks.recovery_stage import ROOT, Beyond, Case, Code, Load, ProcessEndedError
from tests.support.rabbitmq import server_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.recovery_stage import Queue, Stage

OURS = "replica"
MOST_GROWTH = 10.0  # MiB, of a replica while it replays a large backlog
KILLED_AFTER, BEGUN_AFTER = 10.0, 20.0  # seconds


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Return what is run, in the order in which it is run."""
    codes = [Code(OURS), Code("cluster", scope="cluster")]
    if arguments.former:
        codes.append(Code("former", checkout=arguments.former.resolve()))
    codes = [code for code in codes if not arguments.codes or code.name in arguments.codes]
    for number in range(arguments.runs):
        for beyond in arguments.servers:
            for replicas in arguments.replicas:
                for code in (*codes[number % len(codes) :], *codes[: number % len(codes)]):
                    yield Case(beyond, replicas, code)


async def upheaval(stage: Stage, queue: Queue) -> None:
    """Kill half of the replicas in the middle of a drain, and let the late ones begin."""
    await asyncio.sleep(KILLED_AFTER)
    names = [name for name in stage.replicas if name.startswith("replica-")]
    stage.end(*names[: len(names) // 2], kill=True)
    await asyncio.sleep(BEGUN_AFTER - KILLED_AFTER)
    stage.let_begin()
    await nothing(stage, queue)


class Output:
    """The files that are written, after each run, so that what was measured is there."""

    def __init__(self, folder: Path, name: str, about: dict[str, Any], load: Load) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self._about = about
        self._load = load

    def write(self, results: list[Result]) -> None:
        """Write the table, all figures, and a picture for each kind of server and number."""
        load = self._load
        self._file("md").write_text(table(results) + "\n", encoding="utf-8")
        document = {
            **self._about,
            "load": asdict(load),
            "runs": [
                {
                    "server": one.case.beyond,
                    "replicas": one.case.replicas,
                    "code": one.case.code.name,
                    "figures": asdict(one.figures),
                    "curves": asdict(one.curves),
                }
                for one in results
            ],
        }
        self._file("json").write_text(json.dumps(document), encoding="utf-8")
        drawn: dict[tuple[str, int], dict[str, Any]] = {}
        for case, runs in by_case(results).items():
            # The run that drained neither fastest nor slowest.
            middle = sorted(runs, key=lambda one: one.figures.drain)[len(runs) // 2]
            drawn.setdefault((case.beyond, case.replicas), {})[case.code.name] = middle.curves
        for (beyond, replicas), found in drawn.items():
            many = "1 replica" if replicas == 1 else f"{replicas} replicas"
            title = f"{many}, a server that {BEYOND[beyond]} beyond its limit"
            svg = picture(title, found, limit=load.limit, spare=load.capacity - load.live)
            self._file("svg", f"-{beyond}-{replicas}").write_text(svg, encoding="utf-8")

    def write_backlog(self, rows: str) -> None:
        """Write the table of a large backlog."""
        self._file("md").write_text(rows + "\n", encoding="utf-8")

    def _file(self, kind: str, which: str = "") -> Path:
        return self._folder / f"{self._name}{which}.{kind}"


def measure(arguments: argparse.Namespace, load: Load) -> int:
    """Make all runs, and say what they miss."""
    name = "recovery-upheaval" if arguments.upheaval else "recovery-run"
    results: list[Result] = []
    with node(arguments.address) as url, records(arguments) as folder:
        output = Output(arguments.output, name, about(arguments, server_version(url)), load)
        for number, case in enumerate(cases(arguments)):
            beside, late = (upheaval, case.replicas) if arguments.upheaval else (nothing, 0)
            try:
                recorded = asyncio.run(
                    run(load, case, lambda _: url, _new(folder, number, case), beside, late=late)
                )
            except ProcessEndedError as error:
                print(f"a run is not counted, because {error}", flush=True)
                continue
            results.append(Result(case, figures(recorded, load), curves(recorded)))
            print(table(results[-1:]).rpartition("\n")[2], flush=True)
            output.write(results)
    print(f"\n{table(results)}")
    missed = misses(results, OURS)
    print(*(missed or ["no target is missed"]), sep="\n")
    return int(bool(missed))


def watch_backlog(arguments: argparse.Namespace, load: Load) -> int:
    """Park a large backlog, and watch what replicas hold of it."""
    poor = False
    with private_node() as private, records(arguments) as folder:
        for number, case in enumerate(cases(arguments)):
            watch = Watch(private, arguments.seconds)
            if not number:
                watch.admit(f"replica-{one}" for one in range(max(arguments.replicas)))
            recorded = asyncio.run(
                run(load, case, watch.url, _new(folder, number, case), watch.watch)
            )
            hoarded = max((look.hoarded for look in watch.looks), default=0)
            grown = growth(recorded) / MEBIBYTE
            poor |= bool(hoarded) or grown > MOST_GROWTH
            rows = (
                f"{case.replicas} replicas, {case.code.name}, {load.messages} messages, "
                f"RabbitMQ {private.version}\n\n{backlog_table(recorded, watch.looks)}\n\n"
                f"Grown by {grown:.1f} MiB at most, target {MOST_GROWTH:.0f}. Held without a "
                f"subscription: {hoarded} at most, target 0."
            )
            print(rows, flush=True)
            output = Output(
                arguments.output, f"recovery-backlog-{case.replicas}-{case.code.name}", {}, load
            )
            output.write_backlog(rows)
    return int(poor)


def about(arguments: argparse.Namespace, rabbitmq: str) -> dict[str, Any]:
    """Say what was measured: RabbitMQ's version, and the commits."""
    checkouts = {"code": ROOT} | ({"former": arguments.former} if arguments.former else {})
    return {"rabbitmq": rabbitmq} | {name: _commit(path) for name, path in checkouts.items()}


def _commit(checkout: Path) -> str:
    found = subprocess.run(  # noqa: S603 - the words are ours
        ["git", "-C", str(checkout), "describe", "--always", "--dirty"],  # noqa: S607 - from PATH
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


@contextmanager
def records(arguments: argparse.Namespace) -> Iterator[Path]:
    """Return the folder for what the processes write and log; it is kept if it was named."""
    if arguments.records is not None:
        yield arguments.records.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _new(folder: Path, number: int, case: Case) -> Path:
    path = folder / f"{number}-{case.beyond}-{case.replicas}-{case.code.name}"
    path.mkdir(parents=True)
    return path


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _servers(text: str) -> list[Beyond]:
    servers = [one for one in get_args(Beyond) if one in text.split(",")]
    if len(servers) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"must be among {', '.join(get_args(Beyond))}, got {text}")
    return servers


def arguments_of(words: list[str] | None) -> tuple[argparse.Namespace, Load]:
    """Read the command line."""
    load = Load()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", help="an amqp:// URL; by default a private node is started")
    parser.add_argument("--replicas", type=_numbers, default=[1, 8, 16], help="for example 1,8,16")
    parser.add_argument("--servers", type=_servers, default=list(get_args(Beyond)))
    parser.add_argument("--runs", type=int, default=3, help="of each cell")
    parser.add_argument("--messages", type=int, default=load.messages, help="parked")
    parser.add_argument("--former", type=Path, help="a checkout with a .venv, run beside")
    parser.add_argument("--codes", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--before", type=float, default=load.before, help="seconds measured before")
    parser.add_argument("--open-time", type=float, help="seconds; the breaker's default without")
    parser.add_argument("--drain-limit", type=float, default=load.drain_limit, help="seconds")
    parser.add_argument("--upheaval", action="store_true", help="kill and start replicas meanwhile")
    parser.add_argument("--backlog", type=int, help="park so many, and watch what is held of them")
    parser.add_argument("--seconds", type=float, default=120.0, help="that a backlog is watched")
    parser.add_argument("--output", type=Path, default=ROOT / "build")
    parser.add_argument("--records", type=Path, help="a new folder, to keep what was recorded")
    arguments = parser.parse_args(words)
    if arguments.backlog and arguments.address:
        parser.error("--backlog needs a private node, so it cannot have an --address")
    load = replace(
        load,
        messages=arguments.backlog or arguments.messages,
        before=arguments.before,
        open_time=arguments.open_time,
        drain_limit=max(arguments.drain_limit, 2 * arguments.seconds)
        if arguments.backlog
        else arguments.drain_limit,
    )
    return arguments, load


def main(words: list[str] | None = None) -> int:
    """Measure what the command line asks for."""
    arguments, load = arguments_of(words)
    try:
        return (watch_backlog if arguments.backlog else measure)(arguments, load)
    except KeyboardInterrupt:
        print("interrupted; all processes have ended, and what was measured is written")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
