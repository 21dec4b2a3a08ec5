"""Type checkers find a fallback that does not fit, and keep the types of what is guarded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from fusewire import BreakerRegistry, BreakerSettings, circuit_breaker


class User:
    name = ""


def same(user_id: str) -> User:
    return User()


def same_with_error(user_id: str, error: Exception) -> User:
    return User()


def same_with_any_error(user_id: str, error: BaseException) -> User:
    return User()


async def same_async(user_id: str) -> User:
    return User()


async def same_async_with_error(user_id: str, error: Exception) -> User:
    return User()


def users(user_id: str) -> list[User]:
    return [User()]


def other_result(user_id: str) -> int:
    return 1


def other_result_with_error(user_id: str, error: Exception) -> int:
    return 1


def no_result(user_id: str) -> None: ...


def other_argument(user_id: int) -> User:
    return User()


def other_name(uid: str) -> User:
    return User()


def other_error(user_id: str, error: ValueError) -> User:
    return User()


def load(user_id: str) -> User:
    return User()


async def load_async(user_id: str) -> User:
    return User()


def load_all(user_id: str) -> Iterator[User]:
    yield User()


async def load_all_async(user_id: str) -> AsyncIterator[User]:
    yield User()


class Users:
    def _cached(self, user_id: str) -> User:
        return User()

    def _cached_with_error(self, user_id: str, error: Exception) -> User:
        return User()

    @circuit_breaker("users", fallback=_cached)
    def load(self, user_id: str) -> User:
        return User()

    @circuit_breaker("users", fallback=_cached_with_error)
    def load_too(self, user_id: str) -> User:
        return User()

    @circuit_breaker("users", fallback="_cached")
    async def load_async(self, user_id: str) -> User:
        return User()

    @classmethod
    @circuit_breaker("users")
    def load_by_class(cls, user_id: str) -> User:
        return User()

    @circuit_breaker("users")
    @staticmethod
    def load_by_static(user_id: str) -> User:
        return User()


right = [
    circuit_breaker("users")(load),
    circuit_breaker("users", fallback="same", settings=BreakerSettings())(load),
    circuit_breaker("users", fallback=same, registry=BreakerRegistry())(load),
    circuit_breaker("users", fallback=same_with_error)(load),
    circuit_breaker("users", fallback=same_with_any_error)(load),
]
users_name: str = right[0]("7").name + Users().load("7").name + Users().load_too(user_id="7").name
users_name += Users.load_by_class("7").name + Users.load_by_static("7").name
circuit_breaker("users", fallback=same)(load_async)
circuit_breaker("users", fallback=same_with_error)(load_async)
circuit_breaker("users", fallback=same_async)(load_async)
circuit_breaker("users", fallback=same_async_with_error)(load_async)
circuit_breaker("users", fallback=users)(load_all)
circuit_breaker("users", fallback=users)(load_all_async)


async def use() -> str:
    user = await circuit_breaker("users", fallback=same)(load_async)("7")
    also = await Users().load_async("7")
    return user.name + also.name


circuit_breaker("users", fallback=other_result)(load)  # wrong
circuit_breaker("users", fallback=other_result_with_error)(load)  # wrong
circuit_breaker("users", fallback=no_result)(load)  # wrong
circuit_breaker("users", fallback=other_argument)(load)  # wrong
circuit_breaker("users", fallback=other_name)(load)  # wrong
circuit_breaker("users", fallback=other_error)(load)  # wrong
circuit_breaker("users", fallback=same_async)(load)  # wrong
circuit_breaker("users", fallback=same_async_with_error)(load)  # wrong
circuit_breaker("users", fallback=other_result)(load_async)  # wrong
circuit_breaker("users", fallback=same)(load_all)  # wrong
circuit_breaker("users", fallback=3)(load)  # wrong
circuit_breaker("users")(3)  # wrong
circuit_breaker(load)  # wrong
circuit_breaker("users", fallback=same)(load)(7)  # wrong
circuit_breaker("users", fallback=same_with_error)(load)(7)  # wrong
circuit_breaker("users", fallback="same")(load)(7)  # wrong
circuit_breaker("users")(load)()  # wrong
Users().load(7)  # wrong
"""


def _mypy(program: Path) -> str:
    arguments = ("--strict", "--config-file=", f"--cache-dir={program.parent}", str(program))
    return _output(sys.executable, "-m", "mypy", *arguments)


def _pyright(program: Path) -> str:
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    said = json.loads(_output(pyright, "--outputjson", "--pythonpath", sys.executable, program))
    return "\n".join(
        f"{program.name}:{each['range']['start']['line'] + 1}: {each['severity']}"
        for each in said["generalDiagnostics"]
    )


def _output(*command: str | Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False
    )
    return done.stdout


@pytest.mark.parametrize("checker", [_mypy, _pyright])
def test_a_checker_finds_what_is_wrong_and_nothing_else(checker: object, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    lines = PROGRAM.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    said = checker(program)  # type: ignore[operator] # one of the two above
    found = {int(number) for number in re.findall(r"program\.py:(\d+): error", said)}
    assert found == wrong, said
