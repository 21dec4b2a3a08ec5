"""The payments server of a run. It dies by chance: before a request, after its effect, and before
its reply. Its ledger has no constraint that would keep a payment from standing in it twice.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc

from tests.support.settling import (
    CHARGE,
    CHARGE_SOON,
    TRANSFER,
    Deaths,
    SharedPage,
    parse,
    wrong_clock,
)

_RUN, _ROLE, _LIFE = parse(sys.argv)
_PAGE = SharedPage(_RUN)

with wrong_clock(_PAGE.clock(_ROLE)):
    from fusewire.idempotency import SQLiteStore, idempotent
    from fusewire.operation import REPLAY_METADATA

_THREADS = 16
_WAIT = 10.0  # seconds for SQLite's one writer
_DEATH = 1 / 900  # of calls, at each of three points
_ENTER = "INSERT INTO ledger VALUES (?)"


class Payments(grpc.GenericRpcHandler):
    """Answers what the request begins with."""

    def __init__(self, store: SQLiteStore, ledger: str, deaths: Deaths) -> None:
        self._store = store
        self._ledger = ledger
        self._deaths = deaths

    def service(self, handler_call_details: Any) -> Any:
        behave = {CHARGE: self._charge, CHARGE_SOON: self._charge, TRANSFER: self._transfer}
        return grpc.unary_unary_rpc_method_handler(behave[handler_call_details.method])

    def _charge(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = request.decode()
        ledger = self._store.current()
        if not name.startswith("declined"):
            ledger.execute(_ENTER, (name,))  # of a refusal too, which rolls it back
        self._deaths.at("after the effect", _DEATH)
        if name.startswith("refused"):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")
        return b"declined" if name.startswith("declined") else b"charged"

    def _transfer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = request.decode()
        if name.startswith("refused"):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")
        if name.startswith("declined"):
            return b"declined"
        with closing(sqlite3.connect(self._ledger, timeout=_WAIT)) as ledger, ledger:
            ledger.execute(_ENTER, (name,))
        self._deaths.at("after the effect", _DEATH)
        return b"charged"


class Dying(grpc.ServerInterceptor):
    """Dies before the request, and after its answer was committed."""

    def __init__(self, deaths: Deaths) -> None:
        self._deaths = deaths

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        inner = continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata)
        kind = "replay" if REPLAY_METADATA in metadata else "first attempt"

        def behave(request: bytes, context: Any) -> Any:
            self._deaths.at(f"before a {kind}", _DEATH)
            try:
                return inner.unary_unary(request, context)
            finally:
                self._deaths.at(f"before the reply to a {kind}", _DEATH)

        return grpc.unary_unary_rpc_method_handler(
            behave, inner.request_deserializer, inner.response_serializer
        )


def main() -> None:
    """Serve until SIGTERM."""
    ledger = str(_RUN.file("ledger.db"))
    store = SQLiteStore(ledger)
    deaths = Deaths(_RUN, _ROLE, _LIFE, _PAGE)
    interceptors = [Dying(deaths), idempotent(store, [CHARGE, CHARGE_SOON], wait=_WAIT)]
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        handlers=[Payments(store, ledger, deaths)],
        interceptors=interceptors,
        options=[("grpc.so_reuseport", 0)],
    )
    server.add_insecure_port(_RUN.target)
    server.start()
    signal.sigwait([signal.SIGTERM])
    server.stop(1).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main()
