"""The server of the recovery run: payments that it can take only so many of.

It takes `at-a-time` calls at a time and queues the others, first come, first served. Service times
are exponential, with the mean at which it makes `capacity` calls a second. With as many queued as
`limit`, it either refuses (``RESOURCE_EXHAUSTED``), or takes what comes and slows down, by up to
four times; then it also works on for callers that have left, as a server does that does not look.

Capacity is exact: each place begins its next call when the one before it was to end, and not when
the event loop came round to it.

It writes down its queue every 10 ms, with what it has taken, refused and done, live and replay, and
by how much it was late to do so: on a busy machine, the run measures that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio

from benchmarks.recovery_record import Record
from fusewire.demo.payments.v1.payments_pb2 import STATUS_CHARGED, ChargeReply, ChargeRequest

LIVE = ("x-live", "1")
"""The metadata of live calls."""

SAMPLE = 0.01  # seconds
SLOWEST = 4.0  # times its service time, at twice and more its limit


class Job(NamedTuple):
    """A call that was taken."""

    arrived: float
    kind: str
    served: asyncio.Future[None]


class Payments:
    """Charges, at a limited rate."""

    def __init__(self, *, capacity: float, at_a_time: int, limit: int, refuses: bool) -> None:
        self._mean = at_a_time / capacity
        self._at_a_time = at_a_time
        self._limit = limit
        self._refuses = refuses
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._counts = {
            what: {"live": 0, "replay": 0} for what in ("arrived", "refused", "abandoned", "done")
        }

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        """What gRPC calls."""
        charge = grpc.unary_unary_rpc_method_handler(
            self._charge,
            request_deserializer=ChargeRequest.FromString,
            response_serializer=ChargeReply.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            "fusewire.demo.payments.v1.Payments", {"Charge": charge}
        )

    async def _charge(
        self,
        _request: ChargeRequest,
        context: grpc.aio.ServicerContext[ChargeRequest, ChargeReply],
    ) -> ChargeReply:
        kind = "live" if LIVE in tuple(context.invocation_metadata() or ()) else "replay"
        self._counts["arrived"][kind] += 1
        if self._refuses and self._queue.qsize() >= self._limit:
            self._counts["refused"][kind] += 1
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        loop = asyncio.get_running_loop()
        job = Job(loop.time(), kind, loop.create_future())
        self._queue.put_nowait(job)
        await job.served  # cancelled with the call; the job stays in the queue
        return ChargeReply(status=STATUS_CHARGED)

    async def work(self, record: Record) -> None:
        """Serve what is queued, and write down what happens, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_a_time):
                group.create_task(self._serve())
            group.create_task(self._sample(record))
            group.create_task(record.note_usage())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        free = loop.time()
        while True:
            job = await self._queue.get()
            free = max(free, job.arrived) + random.expovariate(1 / self._mean) * self._slowness()
            await asyncio.sleep(free - loop.time())
            if job.served.done():
                self._counts["abandoned"][job.kind] += 1
            else:
                self._counts["done"][job.kind] += 1
                job.served.set_result(None)

    def _slowness(self) -> float:
        beyond = self._queue.qsize() / self._limit - 1
        return min(SLOWEST, 1 + max(0.0, beyond))

    async def _sample(self, record: Record) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            late = loop.time() - due
            record.write("sample", queued=self._queue.qsize(), calls=self._counts, late=late)
            due = max(due + SAMPLE, loop.time())
            await asyncio.sleep(due - loop.time())


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    record = Record(arguments.record)
    payments = Payments(
        capacity=arguments.capacity,
        at_a_time=arguments.at_a_time,
        limit=arguments.limit,
        refuses=arguments.beyond == "refuses",
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((payments.handlers,))
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    await server.start()
    record.write("ready")
    await payments.work(record)


def main() -> None:
    """Serve with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--capacity", type=float, default=200.0, help="calls a second")
    parser.add_argument("--at-a-time", type=int, default=4)
    parser.add_argument("--limit", type=int, default=32, help="calls queued")
    parser.add_argument("--beyond", choices=("refuses", "slows"), required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
