"""Keywords that policies have replaced: they work through this release, and say what to write."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from fusewire._validation import invalid, nearest, shown
from fusewire.errors import SettingsError
from fusewire.parking._settings import ReplayPolicy, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fusewire.parking._unrecoverable import DeadOn

Replay: TypeAlias = ReplayPolicy | Literal["shared", "single"] | None
"""What `replay` takes; the two words are its former form."""

_SCOPES = {"shared": "replica", "single": "cluster"}

_POLICIES: dict[str, type[RetryPolicy | ReplayPolicy]] = {
    "retry": RetryPolicy,
    "replay": ReplayPolicy,
}
_FORMER = {
    "max_attempts": ("retry", "max_attempts"),
    "delay_tiers": ("retry", "delays"),
    "max_age": ("retry", "max_age"),
    "dead_on": ("retry", "dead_on"),
    "replay_concurrency": ("replay", "concurrency"),
    "replay_rate": ("replay", "rate"),
    "replay": ("replay", "scope"),
}
"""By each keyword, the argument that has replaced it, and the field of its policy."""


class FormerKeywords(TypedDict, total=False):
    """Keywords of a consumer that `retry` and `replay` have replaced."""

    max_attempts: int
    delay_tiers: Sequence[float]
    max_age: float | None
    dead_on: DeadOn
    replay_concurrency: int
    replay_rate: float | None


def policies(
    owner: str, retry: RetryPolicy | None, replay: Replay, former: FormerKeywords
) -> tuple[RetryPolicy, ReplayPolicy]:
    """Return the policies that a constructor was given, in either form.

    Args:
        owner: the name of the class. Its constructor calls this function, and a warning names the
            line that called the constructor.
        retry: its argument of that name.
        replay: its argument of that name.
        former: its other keywords.

    Raises:
        TypeError: `owner` has no such keyword.
        SettingsError: a policy was given in both forms, or a value cannot be right.
    """
    old: dict[str, Any] = {**former}
    new: dict[str, Any] = {"retry": retry, "replay": replay}
    if isinstance(replay, str) and replay in _SCOPES:
        old["replay"], new["replay"] = replay, None
    for argument, kind in _POLICIES.items():
        _check_policy(argument, new[argument], kind)
    if old:
        new |= _from_former(owner, old, new)
    return new["retry"] or RetryPolicy(), new["replay"] or ReplayPolicy()


def _check_policy(argument: str, given: object, kind: type) -> None:
    if given is not None and not isinstance(given, kind):
        hint = f"write {kind.__name__}(…)"
        raise invalid(argument, f"a {kind.__name__}, or None", given, hint)


def _from_former(owner: str, old: Mapping[str, Any], new: Mapping[str, object]) -> dict[str, Any]:
    """Make policies of former keywords, and warn of them."""
    fields: dict[str, dict[str, Any]] = {}
    for name, value in old.items():
        if name not in _FORMER:
            near = nearest(name, _FORMER)
            hint = f"; did you mean {near}?" if near else ""
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}{hint}")
        argument, field = _FORMER[name]
        if new[argument] is not None:
            raise SettingsError(
                f"{owner} must be given {argument} or {name}, got both: write "
                f"{argument}={_POLICIES[argument].__name__}({field}={value!r}, …)"
            )
        fields.setdefault(argument, {})[field] = _as_field(name, value)
    instead = ", ".join(
        f"{argument}={_POLICIES[argument].__name__}({_written(values)})"
        for argument, values in fields.items()
    )
    warnings.warn(
        f"{owner}({_written(old)}) is deprecated: write {owner}({instead})",
        DeprecationWarning,
        stacklevel=4,
    )
    return {argument: _POLICIES[argument](**values) for argument, values in fields.items()}


def _as_field(name: str, value: Any) -> Any:
    """Return the value of a former keyword as its policy takes it."""
    match name:
        case "replay":
            return _SCOPES[value]
        case "delay_tiers" if isinstance(value, Iterable) and not isinstance(value, list | str):
            return tuple(value)  # it took any iterable
    return value


def _written(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())
