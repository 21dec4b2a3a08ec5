"""What tests of brokers share with the conformance kit that adapters' authors get."""

from fusewire.testing.conformance._messages import (
    FULL,
    LIMIT,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until,
    until_depth,
    until_receivers,
)

__all__ = [
    "FULL",
    "LIMIT",
    "drain",
    "number_of",
    "numbered",
    "publish_numbered",
    "take",
    "until",
    "until_depth",
    "until_receivers",
]
