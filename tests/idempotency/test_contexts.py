"""An abort is noted and ends nothing: the server's own comes when the transaction has ended."""

from __future__ import annotations

from unittest.mock import Mock

import grpc
import pytest

from fusewire.idempotency._contexts import AbortedError, AioAbortedError, AioContext, Context

NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_on_sync_servers_an_abort_says_what_it_is_and_the_servers_own_waits() -> None:
    real = Mock(spec=grpc.ServicerContext)
    context = Context(real)
    # grpcio's own is a bare Exception, which nobody can tell from a bug.
    with pytest.raises(AbortedError, match="NOT_FOUND: no such account"):
        context.abort(NOT_FOUND, "no such account")
    assert context.abortion == (NOT_FOUND, "no such account")
    real.abort.assert_not_called()


async def test_on_asyncio_servers_the_servers_own_abort_waits_too() -> None:
    real = Mock(spec=grpc.aio.ServicerContext)
    context = AioContext(real)
    with pytest.raises(AioAbortedError):
        await context.abort(NOT_FOUND, "no such account")
    assert context.abortion == (NOT_FOUND, "no such account")
    real.abort.assert_not_called()
