"""Chromium, in which tests open what people will see; installed from Debian's where it is missing.

``python -m tests.support.chromium`` prints its path.
"""

from __future__ import annotations

import os
import shutil
import sys

from tests.support import debian

CHROMIUM_VARIABLE = "FUSEWIRE_TEST_CHROMIUM"

_NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


class NoChromiumError(RuntimeError):
    """There is no Chromium, and none can be installed. The message says what to do."""


def chromium() -> str:
    """Return the path of a Chromium, which is installed if there is none.

    Raises:
        NoChromiumError: there is none, and it cannot be installed.
    """
    if given := os.environ.get(CHROMIUM_VARIABLE):
        return given
    if found := _found():
        return found
    remedy = f"install Debian's package chromium, or name one by {CHROMIUM_VARIABLE}"
    if not debian.can_install():
        raise NoChromiumError(
            f"there is no Chromium, and it can only be installed by root, with apt-get: {remedy}"
        )
    try:
        debian.install("chromium", _found)
    except debian.NotInstalledError as error:
        raise NoChromiumError(f"there is no Chromium, and {error}\n{remedy}") from error
    if found := _found():
        return found
    raise NoChromiumError(f"the package chromium brought none of {', '.join(_NAMES)}: {remedy}")


def _found() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def main() -> None:
    """Print the path."""
    try:
        path = chromium()
    except NoChromiumError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
