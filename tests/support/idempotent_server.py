"""A server whose handler does what a request says, with its keys in a store.

A request is a `ChargeRequest`: `account` says what the handler does, a word and its argument behind
a colon, and `reference` names the operation, whose entries in the ledger are its effects.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import secrets
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status.rpc_status import to_status

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import (
    PaymentsServicer,
    add_PaymentsServicer_to_server,
)
from fusewire.idempotency import (
    Action,
    add_operations,
    aio_idempotent,
    idempotent,
)
from tests.support.idempotent_client import CHARGE, Client
from tests.support.idempotent_places import THREADS, finished
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tests.support.idempotent_places import Database, Place

_LIMIT = 20.0  # seconds

KILL_METADATA = "test-kill"
"""Metadata that names the point at which a call's server is to die."""

KILLED = "killed at:"
"""What a process prints, and the point behind it, before it ends itself."""

TRAILERS = (("receipt", "r-1"), ("receipt", "r-2"), ("receipt-bin", b"\x00\xff"))
"""Trailing metadata that the handler sets, before anything else."""


class Loop:
    """An event loop in a thread of its own, for the servers of all tests.

    One for all: grpcio has one completion queue for all loops of a process.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_LIMIT)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LIMIT)
        self._loop.close()


class Script:
    """What the handler does, for sync and asyncio: a generator that yields what may be awaited.

    Attributes:
        runs: how often the handler ran, by operation.
        begun: set when a slow handler has made its effect.
        go_on: what a slow handler waits for.
        elsewhere: whether its effect is made on a connection of its own.
        kill_at: the point at which this process is to end.
    """

    def __init__(self, store: Any, place: Place, database: Database, *, elsewhere: bool) -> None:
        self._store = store
        self.elsewhere = elsewhere
        self._place = place
        self._database = database
        self.runs: Counter[str] = Counter()
        self.kill_at = ""
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def steps(self, request: ChargeRequest, context: Any) -> Any:
        """Yield what may be awaited, and return the reply."""
        word, _, argument = request.account.partition(":")
        self.runs[request.reference] += 1
        context.set_trailing_metadata(TRAILERS)
        asked = dict(context.invocation_metadata() or ()).get(KILL_METADATA)
        if word == "kill" or asked:
            self.kill_at = asked or argument
            self.die("before-effect")
        if word != "idle":
            yield self._enter(request.reference)
        self.die("after-effect")
        reply = yield from getattr(self, f"_{word}")(request.reference, context, argument)
        return ChargeReply(charge_id=secrets.token_hex(8)) if reply is None else reply

    def wait_for_runs(self, operation: str, runs: int) -> None:
        """Wait until the handler has begun for an operation so many times."""
        until_sync(lambda: self.runs[operation] == runs, "the handler's runs")

    def _ok(self, *_: Any) -> Any:
        yield from ()

    _idle = _ok

    _kill = _ok

    def die(self, point: str) -> None:
        """End this process at once if this is the point where a request asked for it."""
        if self.kill_at == point:
            die(point)

    def _abort(self, _: str, context: Any, code: str) -> Any:
        yield context.abort(grpc.StatusCode[code], f"said {code} in ünïcode")

    def _once(self, operation: str, context: Any, code: str) -> Any:
        if self.runs[operation] == 1:
            yield context.abort(grpc.StatusCode[code], f"said {code} the first time")

    def _rich(self, _: str, context: Any, code: str) -> Any:
        yield context.abort_with_status(rich(code))

    def _swallow(self, _: str, context: Any, code: str) -> Any:
        with contextlib.suppress(Exception):
            yield context.abort(grpc.StatusCode[code], f"said {code}")

    def _set_code(self, _: str, context: Any, code: str) -> Any:
        context.set_code(grpc.StatusCode[code])
        context.set_details(f"set {code}")
        yield from ()

    def _raise(self, *_: Any) -> Any:
        yield from ()
        raise ValueError("a bug")

    def _slow(self, *_: Any) -> Any:
        self.begun.set()
        yield self._wait()

    def _unserializable(self, *_: Any) -> Any:
        yield from ()
        return object()

    def _large(self, _: str, __: Any, size: str) -> Any:
        yield from ()
        return ChargeReply(charge_id="x" * int(size))

    def _commit(self, operation: str, context: Any, code: str) -> Any:
        yield self._store.current().commit()
        yield self._enter(f"{operation} after")
        if code:
            yield context.abort(grpc.StatusCode[code], f"said {code}")

    def _rollback(self, operation: str, *_: Any) -> Any:
        yield self._store.current().rollback()
        yield self._enter(f"{operation} after")

    def _sql(self, operation: str, _: Any, sql: str) -> Any:
        yield self._place.execute(self._store.current(), sql)

    def _fails(self, _: str, __: Any, sql: str) -> Any:  # and nobody notices
        with contextlib.suppress(Exception):
            yield self._place.execute(self._store.current(), sql)

    def _enter(self, operation: str) -> Any:
        sql = f"INSERT INTO {self._database.ledger} VALUES ('{operation}')"  # noqa: S608 - ours
        if self.elsewhere:
            return self._database.execute(sql)
        return self._place.execute(self._store.current(), sql)

    def _wait(self) -> Any:
        if self._place.aio:
            return asyncio.to_thread(self.go_on.wait, _LIMIT)
        return self.go_on.wait(_LIMIT)


def die(point: str) -> None:
    """End this process at once, and say where."""
    os.write(1, f"{KILLED} {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(_LIMIT)


def rich(code: str) -> Any:
    """Return a rich status, as servers write it."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=f"said {code}")
    status.details.add().Pack(error_details_pb2.QuotaFailure())
    return to_status(status)


class _Service(PaymentsServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Charge(self, request: ChargeRequest, context: Any) -> Any:  # noqa: N802 - the name in the .proto
        steps = self._script.steps(request, context)
        try:
            next(steps)
            while True:
                next(steps)
        except StopIteration as end:
            return end.value


class _AioService(PaymentsServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def Charge(self, request: ChargeRequest, context: Any) -> Any:  # noqa: N802 - the name in the .proto
        steps = self._script.steps(request, context)
        try:
            value = next(steps)
            while True:
                try:
                    if inspect.isawaitable(value):
                        await value
                except Exception as error:  # noqa: BLE001 - the script's own to catch
                    value = steps.throw(error)
                else:
                    value = next(steps)
        except StopIteration as end:
            return end.value


class Server:
    """The server, running in this process, and a client of it."""

    def __init__(
        self,
        place: Place,
        database: Database,
        loop: Loop,
        *,
        port: int = 0,
        outside: Sequence[Any] = (),
        inside: Sequence[Any] = (),
        authorize: Callable[..., Any] = lambda *_: True,
        **settings: Any,
    ) -> None:
        self.port = port
        self._authorize = authorize
        self._outside, self._inside = outside, inside
        self.place = place
        self.database = database
        self._loop = loop
        self._settings = {"wait": 0.5, **settings}
        self._elsewhere = settings.get("effects") == "elsewhere"
        if place.aio:
            self._loop.run(self._start_aio())
        else:
            self._start()
        self.client = Client(self.port)
        self.start, self.ask = self.client.start, self.client.ask
        self.query = functools.partial(self.client.operate, Action.QUERY)
        self.cancel = functools.partial(self.client.operate, Action.CANCEL)

    def _start(self) -> None:
        self.store, self._close_store = self.place.open(self.database)
        self.script = Script(self.store, self.place, self.database, elsewhere=self._elsewhere)
        self.interceptor: Any = idempotent(self.store, [CHARGE], **self._settings)
        self._threads = ThreadPoolExecutor(THREADS)
        self._server: Any = grpc.server(self._threads, interceptors=self._interceptors())
        add_PaymentsServicer_to_server(_Service(self.script), self._server)  # type: ignore[abstract] # only Charge is called
        add_operations(self._server, self.store, authorize=self._authorize)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    async def _start_aio(self) -> None:
        self.store, self._close_store = await self.place.open(self.database)
        self.script = Script(self.store, self.place, self.database, elsewhere=self._elsewhere)
        self.interceptor = await aio_idempotent(self.store, [CHARGE], **self._settings)
        self._server = grpc.aio.server(interceptors=self._interceptors())
        add_PaymentsServicer_to_server(_AioService(self.script), self._server)  # type: ignore[abstract] # as above
        add_operations(self._server, self.store, authorize=self._authorize)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    def _interceptors(self) -> list[Any]:
        return [*self._outside, self.interceptor, *self._inside]

    def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function of the store, where it may be awaited."""
        if not self.place.aio:
            return function(*arguments, **named)

        async def call() -> Any:
            return await finished(function(*arguments, **named))

        return self._loop.run(call())

    def effects(self, operation: str) -> int:
        return self.database.effects(operation)

    def close(self) -> None:
        self.script.go_on.set()
        self.client.close()
        if self.place.aio:
            self._loop.run(self._stop_aio())
        else:
            self._server.stop(5).wait()
            self._threads.shutdown()
            self._close_store()

    async def _stop_aio(self) -> None:
        await self._server.stop(5)
        await self.interceptor.close()
        await self._close_store()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
