"""How Spring Boot reads single values: milliseconds, percents, words, names of Java classes."""

from __future__ import annotations

import re
from collections.abc import Callable  # noqa: TC003 - SpringClassifier's annotation is resolved
from dataclasses import dataclass

from fusewire._validation import nearest
from fusewire.breaker import Outcome
from fusewire.config._exceptions import exception_named
from fusewire.config._values import Misread, duration, duration_remedy, read_word
from fusewire.errors import CircuitOpenError, SettingsError

JAVA_EXCEPTIONS = {
    "java.io.IOException": "OSError",
    "java.io.UncheckedIOException": "OSError",
    "java.lang.Exception": "Exception",
    "java.lang.IllegalArgumentException": "ValueError",
    "java.lang.IllegalStateException": "RuntimeError",
    "java.lang.RuntimeException": "Exception",
    "java.lang.Throwable": "Exception",
    "java.lang.UnsupportedOperationException": "NotImplementedError",
    "java.net.ConnectException": "ConnectionError",
    "java.net.SocketException": "ConnectionError",
    "java.net.SocketTimeoutException": "TimeoutError",
    "java.net.UnknownHostException": "socket.gaierror",
    "java.util.concurrent.TimeoutException": "TimeoutError",
    "io.grpc.StatusRuntimeException": "grpc.RpcError",
}
"""What the classes of the JDK and of gRPC are in Python. A checked exception has no kin here."""

_JAVA = re.compile(r"(?:java|javax|jakarta|com|org|net|io|kotlin|feign|reactor)\.[\w.$]+")
_SIMPLE = re.compile(r"([+-]?\d{1,15})\s*(ns|us|ms|s|m|h|d)?", re.IGNORECASE)


def read_milliseconds(value: object) -> float | Misread:
    """Read a duration as Spring does: ``30s``, ``PT30S``; a plain number is milliseconds."""
    text = str(value).strip()
    if simple := _SIMPLE.fullmatch(text):
        seconds = duration(f"{simple[1].lstrip('+-')}{(simple[2] or 'ms').lower()}")
        if seconds is not None and not text.startswith("-"):
            return float(seconds)
    elif text.upper().startswith("P") and (seconds := duration(text)) is not None:
        return float(seconds)
    return Misread(_duration_remedy(text))


def _duration_remedy(text: str) -> str:
    """Return what to write instead of what Spring takes for no duration: it takes no fractions."""
    milliseconds = 1000 * (duration(text) or duration(f"{text}ms") or 0)
    if milliseconds and not milliseconds % 1:
        return f"write {int(milliseconds)}ms"
    return "write a whole number with a unit, as in 30s" if milliseconds else duration_remedy(text)


def read_percent(value: object) -> float | Misread:
    """Read a percent, and return the fraction."""
    try:
        percent = float(str(value).strip())
    except ValueError:
        return Misread("write a number such as 50, without a percent sign")
    if isinstance(value, bool) or not 1 <= percent <= 100:  # noqa: PLR2004 - percents
        share = f"; {percent * 100:g} is that share in percent" if 0 < percent < 1 else ""
        return Misread(f"write a number from 1 to 100{share}")
    return percent / 100


def read_whole(value: object) -> int | Misread:
    """Read a whole number of at least 1, also as a text."""
    text = str(value).strip()
    if not isinstance(value, bool) and re.fullmatch(r"[1-9]\d{0,8}", text):
        return int(text)
    if re.fullmatch(r"0\d+", text):
        return Misread(f"write {int(text)}: with the leading zero it is octal")
    if isinstance(value, float) and value.is_integer() and 1 <= value < 1e9:  # noqa: PLR2004 - as above
        return Misread(f"write {int(value)}")
    return Misread("write a whole number, as in 10")


def read_factor(value: object) -> float | Misread:
    """Read a number, also as a text."""
    try:
        return float(str(value).strip())
    except ValueError:
        return Misread("write a number, as in 1.5")


def read_boolean(value: object) -> bool | Misread:
    """Read ``true``, ``yes``, ``on`` or ``1``, or what says no, as Spring does."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    return False if word in ("false", "no", "off", "0") else Misread("write true or false")


def read_enum(value: object, words: tuple[str, ...]) -> str | Misread:
    """Read one of a Java enum's words; case and hyphens do not matter."""
    return read_word(str(value).strip().upper().replace("-", "_"), words)


def read_exception(name: object, known: dict[str, str]) -> type[BaseException] | Misread:
    """Read the name of a Java class that is known, or of a Python class."""
    text = str(name).strip()
    if text in known:
        return exception_named(known[text])
    if _JAVA.fullmatch(text):
        near = nearest(text, known, cutoff=0.9)
        return Misread(
            f"did you mean {near}?"
            if near
            else f"say what it is in Python: load(…, java_exceptions={{{text!r}: …}}), or the "
            f"option --java-exception {text}=…"
        )
    return exception_named(text)


@dataclass(frozen=True, slots=True)
class SpringClassifier:
    """Judges exceptions as resilience4j does: what is not recorded is a success.

    Equal by value, so that settings from the same file are equal at each reload.

    Attributes:
        record: exceptions that are failures; None for all.
        ignore: exceptions that say nothing. They come first.
        first: code's own function, which is asked before; None for none.
    """

    record: tuple[type[BaseException], ...] | None
    ignore: tuple[type[BaseException], ...] = ()
    first: Callable[[BaseException], Outcome | None] | None = None

    def __call__(self, error: BaseException) -> Outcome | None:
        """Return what `error` says; None for what the breaker itself decides."""
        said = None if self.first is None else self.first(error)
        if said is not None:
            return said
        if isinstance(error, CircuitOpenError | SettingsError | BaseExceptionGroup):
            return None  # a rejection; what is in a group is judged one by one
        if isinstance(error, self.ignore):
            return Outcome.IGNORED
        if self.record is None or isinstance(error, self.record):
            return Outcome.FAILURE
        return Outcome.SUCCESS
