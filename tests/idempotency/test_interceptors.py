"""What the interceptors do besides the truth table: which calls, whose keys, and who is told."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from fusewire.idempotency import (
    MissingTableError,
    NoTransactionError,
    SQLiteStore,
    aio_idempotent,
    idempotent,
)
from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_client import CHARGE
from tests.support.idempotent_places import SYNC_AND_AIO, make_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Loop, Server

both = pytest.mark.parametrize("place", SYNC_AND_AIO, ids=["sync", "aio"])


@both
def test_a_call_without_a_key_is_refused_where_one_is_required(
    serve: Callable[..., Server],
) -> None:
    server = serve(required=True)
    for key in (None, ""):
        answer = server.ask("ok", "a", key=None) if key is None else _with_empty_key(server)
        assert (answer.code, answer.word) == ("INVALID_ARGUMENT", "key-missing")
    assert server.script.runs["a"] == 0


def _with_empty_key(server: Server) -> Any:
    return server.ask("ok", "a", key=None, metadata=(("idempotency-key", ""),))


@both
def test_tenants_have_keys_of_their_own_where_a_scope_is_given(
    serve: Callable[..., Server],
) -> None:
    def tenant(context: Any) -> str:
        return dict(context.invocation_metadata()).get("tenant", "")

    server = serve(scope=tenant)
    one, other = ("tenant", "one"), ("tenant", "other")
    first = server.ask("ok", "a", key="k", metadata=(one,))
    second = server.ask("ok", "b", key="k", metadata=(other,))
    assert (first.code, second.code) == ("OK", "OK")
    assert server.ask("ok", "a", key="k", metadata=(one,)).told == first.told
    assert server.run(server.store.find, CHARGE, "k", scope="one") is not None
    assert server.run(server.store.find, CHARGE, "k") is None


def test_a_long_key_is_recognized(serve: Callable[..., Server]) -> None:
    server = serve()
    key = "k" * 5000
    first = server.ask("ok", "a", key=key)
    assert first.code == "OK"
    assert server.ask("ok", "a", key=key).told == first.told
    assert server.ask("ok", "a", key=f"{key}2").told != first.told
    assert server.effects("a") == 2
    assert server.run(server.store.find, CHARGE, key).answer.reply == first.reply


def test_begin_is_the_transaction_of_a_call_for_tests_and_jobs(
    serve: Callable[..., Server], place: Place
) -> None:
    server = serve()
    insert = f"INSERT INTO {server.database.ledger} VALUES ('a')"  # noqa: S608 - ours

    async def aio(*, fail: bool) -> None:
        async with server.store.begin() as handle:
            assert server.store.current() is handle
            await place.execute(handle, insert)
            if fail:
                raise ValueError("no")

    def sync(*, fail: bool) -> None:
        with server.store.begin() as handle:
            assert server.store.current() is handle
            place.execute(handle, insert)
            if fail:
                raise ValueError("no")

    run = aio if place.aio else sync
    server.run(run, fail=False)
    with pytest.raises(ValueError, match="no"):
        server.run(run, fail=True)
    assert server.effects("a") == 1
    with pytest.raises(NoTransactionError, match="call current"):
        server.store.current()


@both
def test_a_missing_table_is_an_error_when_the_interceptor_is_made(
    place: Place, tmp_path: Path, loop: Loop
) -> None:
    database = make_database(Dialect.SQLITE, tmp_path, None)
    database.execute(f"DROP TABLE {database.keys}")

    async def make_aio() -> None:
        store, close = await place.open(database)
        try:
            await aio_idempotent(store, [CHARGE])
        finally:
            await close()

    def make() -> None:
        with closing(SQLiteStore(database.address)) as store:
            idempotent(store, [CHARGE])

    with pytest.raises(MissingTableError, match='CREATE TABLE "fusewire_idempotency"'):
        loop.run(make_aio()) if place.aio else make()


# The rest needs methods that the demo's service does not have, on servers of a test's own.

ECHO, COUNT, STRUCT = "/test.Keys/Echo", "/test.Keys/Count", "/test.Keys/Struct"


@contextmanager
def sync_server(
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]], *interceptors: grpc.ServerInterceptor
) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors)
    names = {path.rpartition("/")[2]: handler for path, handler in handlers.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Keys", names)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(5).wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    database = make_database(Dialect.SQLITE, tmp_path, None)
    with SQLiteStore(database.address) as made:
        yield made


def ask(channel: grpc.Channel, method: str, request: bytes = b"r", key: str = "k") -> Any:
    return channel.unary_unary(method)(request, metadata=[("idempotency-key", key)], timeout=20)


def test_an_exact_name_of_a_stream_is_refused_and_one_of_a_pattern_passes(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    handlers: Any = {
        COUNT: grpc.unary_stream_rpc_method_handler(lambda request, context: iter([b"1", b"2"]))
    }
    with sync_server(handlers, idempotent(store, ["/test.Keys/*"])) as channel:
        assert list(channel.unary_stream(COUNT)(b"r", timeout=20)) == [b"1", b"2"]
    with sync_server(handlers, idempotent(store, [COUNT])) as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.unary_stream(COUNT)(b"r", timeout=20))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caplog.text.count("is a stream") == 1


def test_methods_that_are_not_declared_are_left_as_they_are(store: SQLiteStore) -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    interceptor = idempotent(store, [COUNT])
    assert interceptor.intercept_service(lambda _: handler, _details(ECHO)) is handler
    assert interceptor.intercept_service(lambda _: None, _details(COUNT)) is None


def _details(method: str) -> Any:
    return SimpleNamespace(method=method, invocation_metadata=())


def test_bytes_methods_are_recorded_and_given_again(store: SQLiteStore) -> None:
    runs = []

    def echo(request: bytes, context: Any) -> bytes:
        store.current()
        runs.append(request)
        return request * 2

    handlers: Any = {ECHO: grpc.unary_unary_rpc_method_handler(echo)}
    with sync_server(handlers, idempotent(store, [ECHO])) as channel:
        assert [ask(channel, ECHO), ask(channel, ECHO)] == [b"rr", b"rr"]
    assert runs == [b"r"]


class Recorder(grpc.ServerInterceptor):
    """An interceptor around ours that looks at replies."""

    def __init__(self, change: Callable[[Any], None] = lambda reply: None) -> None:
        self.replies: list[Any] = []
        self._change = change

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)

        def behavior(request: Any, context: Any) -> Any:
            reply = handler.unary_unary(request, context)
            self.replies.append(reply)
            self._change(reply)
            return reply

        return grpc.unary_unary_rpc_method_handler(
            behavior, handler.request_deserializer, handler.response_serializer
        )


def _struct_handlers(store: SQLiteStore) -> Any:
    def make(request: Struct, context: Any) -> Struct:
        store.current()
        reply = Struct()
        reply.update({f"field {number}": number for number in range(50)})
        return reply

    return {
        STRUCT: grpc.unary_unary_rpc_method_handler(
            make, Struct.FromString, Struct.SerializeToString
        )
    }


def test_a_reply_with_a_map_comes_back_byte_for_byte_in_another_process_too(
    store: SQLiteStore,
) -> None:
    outer = Recorder()
    with sync_server(_struct_handlers(store), outer, idempotent(store, [STRUCT])) as channel:
        first = ask(channel, STRUCT, b"")
        assert [ask(channel, STRUCT, b"") for _ in range(3)] == [first] * 3
    # A new process does not know the class of the replies, and cannot find it by the method's name.
    with sync_server(_struct_handlers(store), idempotent(store, [STRUCT])) as channel:
        assert ask(channel, STRUCT, b"") == first
    assert [type(reply) for reply in outer.replies] == [Struct] * 4


def test_what_an_outer_interceptor_changes_in_a_reply_is_sent(store: SQLiteStore) -> None:
    outer = Recorder(lambda reply: reply.Clear())
    with sync_server(_struct_handlers(store), outer, idempotent(store, [STRUCT])) as channel:
        assert ask(channel, STRUCT, b"") == b""
        assert ask(channel, STRUCT, b"") == b""


def test_a_method_of_two_interceptors_is_refused(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    handlers: Any = {ECHO: grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
    both_of_them = idempotent(store, [ECHO]), idempotent(store, ["/test.Keys/*"])
    with sync_server(handlers, *both_of_them) as channel, pytest.raises(grpc.RpcError) as caught:
        ask(channel, ECHO)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "by two interceptors" in str(caught.value.details())
    assert "by two interceptors" in caplog.text


def test_what_outlives_a_handler_has_no_transaction(store: SQLiteStore) -> None:
    left: list[contextvars.Context] = []

    def echo(request: bytes, context: Any) -> bytes:
        store.current()
        left.append(contextvars.copy_context())  # as a task has that is started here
        return request

    handlers: Any = {ECHO: grpc.unary_unary_rpc_method_handler(echo)}
    with sync_server(handlers, idempotent(store, [ECHO])) as channel:
        ask(channel, ECHO)
    with pytest.raises(NoTransactionError, match="its handler has ended"):
        left[0].run(store.current)


def test_a_plain_function_on_an_asyncio_server_is_refused(
    tmp_path: Path, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    (place,) = (each for each in SYNC_AND_AIO if each.aio)
    database = make_database(Dialect.SQLITE, tmp_path, None)

    def plain(request: bytes, context: Any) -> bytes:
        return request

    async def serve() -> grpc.aio.AioRpcError:
        store, close = await place.open(database)
        server = grpc.aio.server(interceptors=[await aio_idempotent(store, [ECHO])])
        handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(plain)}
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Keys", handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(ECHO)(b"r", timeout=20)
                return caught.value
        finally:
            await server.stop(5)
            await close()

    error = loop.run(serve())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "plain is no coroutine function" in error.details()
    assert "plain is no coroutine function" in caplog.text


def test_the_failure_of_a_handler_whose_caller_has_gone_is_logged(
    tmp_path: Path, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    (place,) = (each for each in SYNC_AND_AIO if each.aio)
    database = make_database(Dialect.SQLITE, tmp_path, None)

    async def serve() -> None:
        go_on = asyncio.Event()

        async def fail(request: bytes, context: Any) -> bytes:
            await go_on.wait()
            raise ValueError("nobody hears this")

        store, close = await place.open(database)
        interceptor = await aio_idempotent(store, [ECHO])
        server = grpc.aio.server(interceptors=[interceptor])
        handlers: Any = {"Echo": grpc.unary_unary_rpc_method_handler(fail)}
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Keys", handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(ECHO)(b"r", timeout=0.2)
        await server.stop(5)
        go_on.set()
        await interceptor.close()
        await close()

    loop.run(serve())
    assert "its caller had gone: nobody hears this" in caplog.text


@pytest.mark.parametrize("place", SYNC_AND_AIO[:1], ids=["sync"])
def test_the_first_call_that_waits_for_a_connection_is_logged(
    serve: Callable[..., Server],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(SQLiteStore, "most_calls", 1)
    server = serve()
    assert server.ask("ok", "a").code == "OK"
    assert "wait for one another" not in caplog.text
    first = server.start("slow", "b")
    assert server.script.begun.wait(20)
    for _ in range(2):
        assert server.ask("ok", "c").word == "busy"
    server.script.go_on.set()
    first.result(20)
    assert caplog.text.count("than the 1 connections of the store's pool") == 1
