"""Is what waits in a consumer's queues safe, and what does an administrator have to make?"""

from fusewire._public import publish
from fusewire.audit._audit import audit
from fusewire.audit._definitions import (
    Permissions,
    Policy,
    definitions,
    permissions,
    policies,
)
from fusewire.audit._findings import Finding, Severity

__all__ = [
    "Finding",
    "Permissions",
    "Policy",
    "Severity",
    "audit",
    "definitions",
    "permissions",
    "policies",
]

publish(__name__, __all__)
