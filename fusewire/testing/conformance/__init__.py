"""Is a broker one that parking can rely on? Tests for the author of an adapter; pytest runs them.

Subclass :class:`BrokerConformance` and override its fixture ``place``; ``docs/write-a-broker.md``
shows it. The tests assert outcomes: what is where, and whether anything is lost or doubled.
"""

import pytest

_WITH_TESTS = (
    "_consuming",
    "_delaying",
    "_searching",
    "_settling",
    "_sharing",
    "_single",
    "_storing",
)

# Before they are imported: a test that fails then shows the values that it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_TESTS))

from fusewire._public import publish  # noqa: E402 - see above
from fusewire.testing.conformance._kit import BrokerConformance  # noqa: E402 - see above
from fusewire.testing.conformance._place import Place  # noqa: E402 - see above

__all__ = ["BrokerConformance", "Place"]

publish(__name__, __all__)
