"""What a key costs: a method that is declared idempotent, next to its handler's own transaction.

On a real PostgreSQL, a private cluster of the benchmark's own, whose commits reach the disk. One
server has the same handler, an insert of one row, several times: in a transaction of its own by
psycopg, declared idempotent, and bare. The client is in this process.

In each round the subjects take turns, a few calls at a time and in an order that changes. The ratio
of a round is taken first, and then the median of the ratios, with the middle half of them.

    python -m benchmarks.idempotency --rounds 11

It exits with 1 if a target is missed. `undeclared` is CPU of this process, against an interceptor
that does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import secrets
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import psycopg_pool

from fusewire.idempotency import idempotent
from fusewire.idempotency._sql import Dialect
from fusewire.idempotency.psycopg import PsycopgStore
from tests.support.idempotent_places import make_database
from tests.support.postgres import start_private_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

THREADS = 8
TURN = 10  # calls of one subject between those of others
SERVICE = "bench.Bench"


class Target(NamedTuple):
    """A ratio that is asked for: `most` if it is to be at most that, `least` if at least."""

    most: float | None = None
    least: float | None = None

    def is_met(self, ratio: float) -> bool:
        """Return whether a ratio meets it."""
        return (self.most is None or ratio <= self.most) and (
            self.least is None or ratio >= self.least
        )

    def __str__(self) -> str:
        return f"at most {self.most}" if self.most is not None else f"at least {self.least}"


TARGETS = {
    "a call with a key ÷ its handler's own transaction, p50": Target(most=1.45),
    "a recognized duplicate ÷ the handler's own transaction, p50": Target(most=1.3),
    "eight at a time, rate ÷ that of the handler's own transaction": Target(least=0.60),
    "an undeclared method ÷ an interceptor that does nothing, CPU": Target(most=1.05),
}


class NoOp(grpc.ServerInterceptor):
    """Does nothing."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the handler as it is."""
        return continuation(details)


@contextlib.contextmanager
def serving(
    handlers: dict[str, Callable[[bytes, Any], bytes]], interceptor: grpc.ServerInterceptor
) -> Iterator[grpc.Channel]:
    threads = ThreadPoolExecutor(THREADS)
    # All of them now: a server whose calls are slow would get more of them than another.
    together = Barrier(THREADS)
    list(threads.map(lambda _: together.wait(), range(THREADS)))
    server = grpc.server(threads, interceptors=[interceptor])
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(5).wait()


@dataclass(frozen=True)
class Subject:
    """What is called, and with which key."""

    call: Any
    same_key: str | None = None

    def __call__(self, _: int = 0) -> float:
        """Make a call and return how many seconds it took."""
        key = self.same_key or secrets.token_hex(12)
        began = time.perf_counter()
        self.call(b"request", metadata=(("idempotency-key", key),), timeout=30)
        return time.perf_counter() - began


def warm(subjects: Iterable[Subject]) -> None:
    """Have connections, plans and caches ready."""
    with ThreadPoolExecutor(THREADS) as threads:
        for subject in subjects:
            list(threads.map(subject, range(25 * THREADS)))


def rate(subject: Subject, calls: int) -> float:
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(subject, range(THREADS)))
        began = time.perf_counter()
        list(threads.map(subject, range(calls)))
        return calls / (time.perf_counter() - began)


def in_turns(subjects: dict[str, Subject], calls: int) -> Iterator[str]:
    """Yield the name of the one whose turn of `TURN` calls it is, until each has made `calls`."""
    order = list(subjects)
    for _ in range(calls // TURN):
        random.shuffle(order)
        yield from order


def p50s(subjects: dict[str, Subject], calls: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in subjects}
    for name in in_turns(subjects, calls):
        took[name] += [subjects[name]() for _ in range(TURN)]
    return {name: statistics.median(each) for name, each in took.items()}


def cpus(subjects: dict[str, Subject], calls: int) -> dict[str, float]:
    used = dict.fromkeys(subjects, 0.0)
    for name in in_turns(subjects, calls):
        began = time.process_time()
        for _ in range(TURN):
            subjects[name]()
        used[name] += time.process_time() - began
    return used


def rounds_of(
    rounds: int, calls: int, own: Subject, once: Subject, subjects: dict[str, Subject]
) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {name: [] for name in TARGETS}
    key, duplicate, eight, undeclared = TARGETS
    replay = Subject(once.call, "the same")
    warm([own, once, replay, *subjects.values()])
    for _ in range(rounds):
        took = p50s({"own": own, "once": once, "replay": replay}, calls)
        ratios[key].append(took["once"] / took["own"])
        ratios[duplicate].append(took["replay"] / took["own"])
        rates = {subject: rate(subject, 2 * calls) for subject in random.sample([own, once], 2)}
        ratios[eight].append(rates[once] / rates[own])
        used = cpus(subjects, 4 * calls)
        ratios[undeclared].append(used["undeclared"] / used["no-op"])
    return ratios


def measured(rounds: int, calls: int) -> dict[str, list[float]]:
    with (
        contextlib.closing(start_private_postgres(fsync=True)) as postgres,
        tempfile.TemporaryDirectory() as folder,
    ):
        database = make_database(Dialect.POSTGRESQL, Path(folder), postgres.url)
        insert = f"INSERT INTO {database.ledger} VALUES ('x')".encode()  # noqa: S608 - ours
        size: dict[str, Any] = {"min_size": THREADS, "max_size": THREADS, "open": True}
        with psycopg_pool.ConnectionPool(postgres.url, **size) as pool:
            store = PsycopgStore(pool, schema=database.schema)

            def own(_: bytes, __: Any) -> bytes:
                with pool.connection() as connection:
                    connection.execute(insert)
                return b"reply"

            def once(_: bytes, __: Any) -> bytes:
                store.current().execute(insert)
                return b"reply"

            handlers = {"Own": own, "Once": once, "Bare": lambda _, __: b"reply"}
            ours = idempotent(store, [f"/{SERVICE}/Once"], threads=THREADS, sweep=None)
            with serving(handlers, ours) as channel, serving(handlers, NoOp()) as other:
                return rounds_of(
                    rounds,
                    calls,
                    Subject(channel.unary_unary(f"/{SERVICE}/Own")),
                    Subject(channel.unary_unary(f"/{SERVICE}/Once")),
                    {
                        "undeclared": Subject(channel.unary_unary(f"/{SERVICE}/Bare")),
                        "no-op": Subject(other.unary_unary(f"/{SERVICE}/Bare")),
                    },
                )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--calls", type=int, default=200, help="of each subject in a round")
    options = parser.parse_args(arguments)
    missed = 0
    for name, ratios in measured(options.rounds, options.calls).items():
        ratio, target = statistics.median(ratios), TARGETS[name]
        low, _, high = statistics.quantiles(ratios, n=4)
        met = target.is_met(ratio)
        missed += not met
        verdict = "met" if met else "MISSED"
        print(f"{name}: {ratio:.2f} ({low:.2f} to {high:.2f}), {target}: {verdict}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
