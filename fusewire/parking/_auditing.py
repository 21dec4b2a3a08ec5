"""The audit that a consumer makes of its queues when it starts, beside its work."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire.audit import Severity, audit
from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fusewire.brokers import Broker, Topology

logger = logging.getLogger("fusewire.parking")


@asynccontextmanager
async def auditing(broker: Broker, topology: Topology) -> AsyncIterator[None]:
    """Audit the queues while the block begins its work, and log what is found.

    Nobody waits for it, and it stops nobody: what is unsafe now was so before the start, and a
    consumer that does not start handles nothing at all.
    """
    auditing = Background(
        partial(_audit, broker, topology),
        name=f"the audit of the queues of {topology.source!r}",
        logger=logger,
    )
    try:
        yield
    finally:
        auditing.cancel()
        await auditing.finish()


async def _audit(broker: Broker, topology: Topology) -> None:
    try:
        findings = await audit(broker, topology)
    except FusewireError as error:
        logger.warning("the queues of %r were not audited: %s", topology.source, error)
        return
    except Exception:
        logger.exception("the queues of %r were not audited", topology.source)
        return
    unchecked = [found for found in findings if found.severity is Severity.UNCHECKED]
    for found in findings:
        if found.severity is not Severity.UNCHECKED:
            logger.warning(
                "%s (%s): %s; %s. %s",
                found.subject,
                found.severity,
                found.what,
                found.why,
                found.remedy,
            )
    if unchecked:
        subjects = ", ".join(found.subject for found in unchecked)
        logger.info(
            "of the queues of %r not checked: %s. %s",
            topology.source,
            subjects,
            unchecked[0].remedy,
        )
