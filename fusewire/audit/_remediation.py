"""What to do about a finding of the audit, with commands to copy."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from fusewire.audit._definitions import matching

if TYPE_CHECKING:
    from fusewire.audit._facts import QueueFacts


class Remediation:
    """Remedies for the queues of one virtual host."""

    def __init__(self, virtual_host: str) -> None:
        self._virtual_host = virtual_host

    def again(self, name: str, how: str = "") -> str:
        """Declare a queue again: an argument cannot be changed."""
        emptied = self._ctl("delete_queue", name, options=("--if-empty",))
        then = how or "the consumer's next start declares it as it should be"
        return f"once it is empty and no consumer runs, delete it; {then}:\n{emptied}"

    def policy(self, name: str, definition: dict[str, int | str]) -> str:
        """Set something by a policy."""
        return "set it by a policy, merged with what others set for this queue:\n" + self._ctl(
            "set_policy",
            f"fusewire {name}",
            matching([name]),
            json.dumps(definition),
            options=("--apply-to", "queues"),
        )

    def refuse(self, name: str, queue: QueueFacts, limits: dict[str, int]) -> str:
        """Make a queue refuse messages beyond its limits."""
        if "x-overflow" in queue.arguments and queue.type != "quorum":  # then it is not a policy's
            return self.again(name, "declare it with x-overflow=reject-publish")
        return self.policy(name, {**limits, "overflow": "reject-publish"})

    def unset(self, name: str, queue: QueueFacts, key: str) -> str:
        """Remove a value that an argument or a policy sets."""
        if f"x-{key}" in queue.arguments and not queue.by_policy(key):
            return self.again(name, f"declare it without x-{key}")
        listed = self._ctl("list_policies")
        return (
            f"take {key} out of the policy, or give the queue one of a higher priority without it; "
            f"the policies are listed by:\n{listed}"
        )

    def _ctl(self, command: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        return (
            f"rabbitmqctl {shlex.join([command, '-p', self._virtual_host, *arguments, *options])}"
        )
