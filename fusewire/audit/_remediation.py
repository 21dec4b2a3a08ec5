"""What to do about a finding of the audit, with the commands to copy."""

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
        """Make a queue anew: an argument cannot be changed."""
        emptied = self._ctl("delete_queue", name, options=("--if-empty",))
        then = how or "it is made as it should be at the consumer's next start"
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
        """Have a queue refuse what its limits leave no room for."""
        if "x-overflow" in queue.arguments and queue.type != "quorum":  # then it is not a policy's
            return self.again(name, "make it with x-overflow=reject-publish")
        return self.policy(name, {**limits, "overflow": "reject-publish"})

    def unset(self, name: str, queue: QueueFacts, key: str) -> str:
        """Take away what an argument or a policy sets and should not."""
        if f"x-{key}" in queue.arguments and not queue.by_policy(key):
            return self.again(name, f"make it without x-{key}")
        listed = self._ctl("list_policies")
        return (
            f"take {key} out of the policy, or give the queue one of a higher priority without it; "
            f"the policies are listed by:\n{listed}"
        )

    def _ctl(self, command: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        return (
            f"rabbitmqctl {shlex.join([command, '-p', self._virtual_host, *arguments, *options])}"
        )
