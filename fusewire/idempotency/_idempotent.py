"""What users call to have methods made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fusewire._validation import (
    COUNT,
    SECONDS,
    Rule,
    check,
    check_plain_function,
    instance_of,
    is_coroutine_function,
)
from fusewire.errors import SettingsError
from fusewire.idempotency._aio import AioInterceptor
from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._core import Core
from fusewire.idempotency._flow import Flow
from fusewire.idempotency._methods import Methods
from fusewire.idempotency._settings import FINAL, MOST_BYTES, WEEK, OnDoubt, make_terms
from fusewire.idempotency._sync import Interceptor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import grpc


_SCOPES = ("the call's context",)
_DOUBTS = ("the key", "the request", "the call's context")
_COROUTINE_FUNCTION = Rule("'refuse', 'rerun' or a coroutine function", is_coroutine_function)


def idempotent(
    store: SyncStore,
    methods: Iterable[str],
    *,
    keep: float = WEEK,
    wait: float = 1.0,
    effects: Literal["transaction", "elsewhere"] = "transaction",
    on_doubt: OnDoubt = "refuse",
    lease: float = 30.0,
    required: bool = False,
    scope: Callable[[grpc.ServicerContext], str] | None = None,
    final: Collection[grpc.StatusCode] = FINAL,
    max_reply: int = MOST_BYTES,
    sweep: float | None = 60.0,
    threads: int | None = None,
) -> grpc.ServerInterceptor:
    """Make an interceptor for `grpc.server` that has each key's work done once.

    A call's key is its metadata ``idempotency-key``. The key is claimed before the handler runs, in
    the transaction that the handler works in: ``store.current()``. Key, reply and effects are
    committed together before anything is sent. A later call with the key gets the stored answer.
    A call without a key runs in a transaction too, and nothing is recorded.

    Args:
        store: where keys are recorded: the database of the handlers' effects.
        methods: the methods, as ``/pkg.Service/Method`` or ``/pkg.Service/*``. Only calls of one
            request and one reply can be recorded: a stream that is named exactly is refused with
            UNIMPLEMENTED, and one that a pattern matches is left alone.
        keep: seconds for which a key is recognized after its answer, at least an hour.
        wait: seconds that a call waits for another one with its key, or for SQLite's lock, before
            it is refused with ABORTED. It holds a thread and a connection meanwhile.
        effects: ``"elsewhere"`` if the handler's effect is not in the store's database. Then the
            key is claimed and recorded in transactions of their own, and after a crash in between
            the work is in doubt.
        on_doubt: what to do with a call whose work is in doubt, where effects are elsewhere.
            ``"refuse"``: FAILED_PRECONDITION. ``"rerun"``: run the handler again, which is right
            where it passes the key on to something that honors it. A function is given key, request
            and context, and returns the reply of the work that it has found, or None if the work
            was not done, and then the handler runs.
        lease: seconds for which work elsewhere counts as running: at least what the longest handler
            takes. When it is over, the work is in doubt; it is not run again.
        required: whether a call without a key is refused, with INVALID_ARGUMENT.
        scope: returns whose key it is, given the call's context, where tenants may use the same
            keys. Make it of what the first call and its replay have in common: a replay may come
            from another machine.
        final: statuses that are answers. They are stored and given again. All other statuses, and
            exceptions, roll the handler's work back and free the key.
        max_reply: bytes of reply, details and trailing metadata that are stored. A larger answer
            is RESOURCE_EXHAUSTED, and its work is rolled back.
        sweep: seconds between deletions of expired records, in small batches, after a call and
            beside it. None leaves that to you: see the store's `sweep`.
        threads: the number of the server's threads, if the store's pool is to be checked against
            it: a call holds a connection from its claim to its commit, and threads that wait for
            one serve nobody.

    Raises:
        SettingsError: a setting cannot be right.
        MissingTableError: the store's table is not there; the message has its DDL.
        Exception: whatever the driver raises if the database cannot be reached.
    """
    check("store", store, instance_of(SyncStore))
    check("threads", threads, COUNT.or_none)
    if threads is not None and store.most_calls is not None and store.most_calls < threads:
        raise SettingsError(
            f"threads must be at most the {store.most_calls} connections of the store's pool, got "
            f"{threads}: make the pool as large as the server has threads"
        )
    for name, function, arguments in (("scope", scope, _SCOPES), ("on_doubt", on_doubt, _DOUBTS)):
        if callable(function):
            check_plain_function(name, function, *arguments)
    core = make_core(
        store,
        methods,
        keep=keep,
        wait=wait,
        effects=effects,
        on_doubt=on_doubt,
        lease=lease,
        required=required,
        scope=scope,
        final=final,
        max_reply=max_reply,
        sweep=sweep,
    )
    store.check_table()
    store.declare(core)
    return Interceptor(core, store)


async def aio_idempotent(
    store: AioStore,
    methods: Iterable[str],
    *,
    keep: float = WEEK,
    wait: float = 1.0,
    effects: Literal["transaction", "elsewhere"] = "transaction",
    on_doubt: OnDoubt = "refuse",
    lease: float = 30.0,
    required: bool = False,
    scope: Callable[[grpc.aio.ServicerContext[Any, Any]], str] | None = None,
    final: Collection[grpc.StatusCode] = FINAL,
    max_reply: int = MOST_BYTES,
    sweep: float | None = 60.0,
) -> AioInterceptor:
    """Make an interceptor for `grpc.aio.server` that has each key's work done once.

    It is awaited, because it looks whether the store's table is there. A handler goes on to its end
    when its caller's deadline passes, when the caller cancels, and when the server stops: await the
    interceptor's `close` then. A declared method's handler must be a coroutine function.

    Args:
        store: as for :func:`idempotent`, for asyncio.
        methods: as for :func:`idempotent`.
        keep: as for :func:`idempotent`.
        wait: as for :func:`idempotent`.
        effects: as for :func:`idempotent`.
        on_doubt: as for :func:`idempotent`; a function is a coroutine function.
        lease: as for :func:`idempotent`.
        required: as for :func:`idempotent`.
        scope: as for :func:`idempotent`; a plain function.
        final: as for :func:`idempotent`.
        max_reply: as for :func:`idempotent`.
        sweep: as for :func:`idempotent`.

    Raises:
        SettingsError: a setting cannot be right.
        MissingTableError: the store's table is not there; the message has its DDL.
        Exception: whatever the driver raises if the database cannot be reached.
    """
    check("store", store, instance_of(AioStore))
    if scope is not None:
        check_plain_function("scope", scope, *_SCOPES)
    if callable(on_doubt):
        check("on_doubt", on_doubt, _COROUTINE_FUNCTION)
    core = make_core(
        store,
        methods,
        keep=keep,
        wait=wait,
        effects=effects,
        on_doubt=on_doubt,
        lease=lease,
        required=required,
        scope=scope,
        final=final,
        max_reply=max_reply,
        sweep=sweep,
    )
    await store.check_table()
    store.declare(core)
    return AioInterceptor(core, store)


def make_core(
    store: SyncStore | AioStore, methods: Iterable[str], *, sweep: float | None, **said: Any
) -> Core:
    """Check what a user has said, and return what both kinds of servers need of it."""
    check("sweep", sweep, SECONDS.or_none)
    return Core(
        Methods(methods),
        Flow(make_terms(**said), store.sql, store.trouble),
        required=said["required"],
        scope=said["scope"],
        sweep=sweep,
        requests=store.requests,
    )
