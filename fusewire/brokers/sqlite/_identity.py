"""Whether the names of an open database still lead to what is open.

SQLite goes on in a file that was moved or deleted while it is open. What is committed there is on
the disk, and nobody who opens the file by its name will find it. The same is true of the log beside
it, which holds the latest commits; and processes that do not share the index beside it do not see
each other's locks.
"""

from __future__ import annotations

import os
from contextlib import suppress

_File = tuple[int, int] | None  # device and inode


class FileIdentity:
    """The file, its log and its index, as their names led to them when this was made.

    It means something as long as they are open: afterwards, other files may have their numbers. The
    files themselves are never opened here: closing one would take SQLite's locks away.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._beside = names_beside(path)
        self._file = _look_up_file(path)
        self._files_beside = [_look_up(name) for name in self._beside]

    @property
    def complete(self) -> bool:
        """Whether there was a file under each name."""
        return None not in self._files()

    def is_same_file(self, other: FileIdentity) -> bool:
        """Return whether `other` is the same file, whatever its log and index."""
        return self._file == other._file

    def clashes(self, other: FileIdentity) -> bool:
        """Return whether `other` has some of these three files, and not all of them."""
        mine, others = self._files() - {None}, other._files() - {None}
        return mine != others and not mine.isdisjoint(others)

    def intact(self) -> bool:
        """Return whether each name leads to the file that it led to."""
        return self.leads_to_file() and all(
            _look_up(name) == known
            for name, known in zip(self._beside, self._files_beside, strict=True)
        )

    def leads_to_file(self) -> bool:
        """Return whether the file's own name leads to it."""
        return self._file is not None and _look_up_file(self._path) == self._file

    def others_beside(self) -> bool:
        """Return whether another log or index stands in the place of one of these."""
        return any(
            _look_up(name) not in (None, known)
            for name, known in zip(self._beside, self._files_beside, strict=True)
        )

    def is_open(self) -> bool:
        """Return whether this process has these files open, and not others of their names."""
        numbers = _open_numbers()
        found = {_look_up_number(number) for number in numbers}
        return not numbers or self._files() <= found

    def log_is_empty(self) -> bool:
        """Return whether the log holds nothing, also when it has lost its name."""
        log = self._files_beside[0]
        for number in _open_numbers():
            if _look_up_number(number) == log:
                with suppress(OSError):  # closed meanwhile
                    return os.fstat(number).st_size == 0
        return False

    def unlink_beside(self) -> None:
        """Take the names of log and index away where they still lead to these.

        Then a process that opens the file's name afterwards shares neither with those that use
        these.
        """
        for name, known in zip(self._beside, self._files_beside, strict=True):
            if known is not None and _look_up(name) == known:
                with suppress(OSError):  # another process was faster, or the folder is read-only
                    os.unlink(name)  # noqa: PTH108 (as in the rest of this module)

    def _files(self) -> set[_File]:
        return {self._file, *self._files_beside}


def names_beside(path: str) -> tuple[str, str]:
    """Return the names of a file's log and index."""
    real = os.path.realpath(path)  # SQLite puts them beside the file, not beside a link to it
    return f"{real}-wal", f"{real}-shm"


def torn(path: str) -> bool:
    """Return whether one of file, log and index was deleted, and not all that belongs to it.

    Those that have it open then use another log, or other locks, than a process that opens it now
    would: together they would destroy it.
    """
    log, index = (_look_up(name) is not None for name in names_beside(path))
    return log != index or (log and _look_up_file(path) is None)


def _open_numbers() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208 (numbers)
    except OSError:  # Windows, where nobody can delete what is open
        return []


def _look_up_number(number: int) -> _File:
    try:
        stat = os.fstat(number)
    except OSError:  # closed meanwhile
        return None
    return stat.st_dev, stat.st_ino


def _look_up_file(path: str) -> _File:
    try:
        stat = os.stat(path)  # noqa: PTH116 (as below)
    except OSError:
        return None
    # One that was emptied in its place is a new one to SQLite, which then deletes the log.
    return (stat.st_dev, stat.st_ino) if stat.st_size else None


def _look_up(name: str) -> _File:
    try:
        stat = os.stat(name)  # noqa: PTH116 (three a commit: a Path costs more than the call)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
