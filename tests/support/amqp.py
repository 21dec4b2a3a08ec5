"""A plain AMQP connection for tests whose RabbitMQ may be away."""

from __future__ import annotations

import aio_pika


class _Connection(aio_pika.Connection):
    def __del__(self) -> None:
        """Do nothing.

        aio-pika (10.2.1) begins to close a connection that is collected and was not closed, as
        after a failed connect or close: at any time, also when no event loop runs, with a coroutine
        that nothing awaits. The failure shows in another test.
        """


async def connect(url: str) -> aio_pika.abc.AbstractConnection:
    """Connect as :func:`aio_pika.connect` does; a failure leaves nothing for a later test."""
    return await aio_pika.connect(url, connection_class=_Connection)
