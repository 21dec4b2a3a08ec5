"""Malformed files of our own form, by hand: each with the places and remedies of its problems."""

from __future__ import annotations

from typing import NamedTuple


class Malformed(NamedTuple):
    """A file with problems.

    Attributes:
        name: what is wrong.
        text: the file.
        problems: by each problem its place without the file, the value shown, and the remedy.
        env: the environment.
    """

    name: str
    text: str
    problems: list[tuple[str, str, str]]
    env: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


def circuit(name: str, text: str, at: int, value: str, remedy: str) -> Malformed:
    """Return a file with one problem in the settings of a circuit; `at` counts from the text."""
    before = "fusewire: {breakers: {circuits: {a: {"
    column = len(before) + at
    return Malformed(name, f"{before}{text}}}}}}}}}", [(f"1:{column}", value, remedy)])


def whole(name: str, text: str, *problems: tuple[str, str, str], **env: str) -> Malformed:
    """Return a file with these problems."""
    return Malformed(name, text, list(problems), env)


OK = "fusewire: {}\n"

VALUES = [
    circuit("a clock time", "recovery_timeout: 1:30", 19, "'1:30'", "write 1m30s; YAML 1.1 would"),
    circuit("a spelt unit", "recovery_timeout: 30 seconds", 19, "'30 seconds'", "write 30s"),
    circuit("a unit in capitals", "recovery_timeout: 30S", 19, "'30S'", "write 30s"),
    circuit(
        "a unit of months", "recovery_timeout: 3mo", 19, "'3mo'", "use one of the units ns, us"
    ),
    circuit("a time without a number", "recovery_timeout: s", 19, "'s'", "write it as in 30s"),
    circuit("a period of nothing", "recovery_timeout: PT", 19, "'PT'", "write it as in 30s"),
    circuit("a quoted number", "recovery_timeout: '30'", 19, "'30'", "write 30 without quotes"),
    circuit("a decimal comma", "recovery_timeout: '1,5'", 19, "'1,5'", "write 1.5"),
    circuit("a time of 0", "recovery_timeout: 0s", 19, "'0s'", "write a value that is accepted"),
    circuit("a negative time", "recovery_timeout: -5", 19, "-5", "write a value that is accepted"),
    circuit("infinity", "recovery_timeout: .inf", 19, "'.inf'", "write it as in 30s"),
    circuit("no number", "recovery_timeout: .nan", 19, "'.nan'", "write it as in 30s"),
    circuit("null where there is no none", "recovery_timeout: null", 19, "null", "remove the key"),
    circuit("a list for a time", "recovery_timeout: [1s]", 19, "a list", "write it as in 30s"),
    circuit("a switch for a time", "max_wait: true", 11, "true", "write it as in 30s"),
    circuit("a percent as a number", "failure_rate_threshold: 50", 25, "50", "write 50% or 0.5"),
    circuit("more than all", "failure_rate_threshold: 120%", 25, "'120%'", "write a value that is"),
    circuit("a quoted fraction", "failure_rate_threshold: '0.5'", 25, "'0.5'", "without quotes"),
    circuit(
        "a word for a share", "slow_call_rate_threshold: half", 27, "'half'", "as in 0.5 or 50%"
    ),
    circuit("an octal number", "failure_threshold: 010", 20, "'010'", "write 10: with the leading"),
    circuit("underscores", "failure_threshold: 1_0", 20, "'1_0'", "write 10"),
    circuit("a fraction of a count", "failure_threshold: 2.0", 20, "2.0", "write 2"),
    circuit("hexadecimal", "failure_threshold: 0x10", 20, "'0x10'", "write a whole number"),
    circuit(
        "too many digits", f"failure_threshold: {'9' * 5000}", 20, "'999", "write a whole number"
    ),
    circuit("a count of 0", "failure_threshold: 0", 20, "0", "write a value that is accepted"),
    circuit("a switch for a count", "minimum_calls: true", 16, "true", "write a whole number"),
    circuit("YAML 1.1's yes", "open_on_hanging: yes", 18, "'yes'", "write true"),
    circuit("YAML 1.1's off", "log_messages: off", 15, "'off'", "write false"),
    circuit("a number for a switch", "log_messages: 1", 15, "1", "write true"),
    circuit("a word for a switch", "log_messages: maybe", 15, "'maybe'", "write true or false"),
    circuit("a mode of YAML 1.1", "mode: off", 7, "'off'", "write one of automatic"),
    circuit("a misspelt mode", "mode: forced_opn", 7, "'forced_opn'", "did you mean forced_open?"),
    circuit("an unknown preset", "preset: kritical", 9, "'kritical'", "did you mean critical?"),
    circuit("a growth below 1", "recovery_timeout_growth: 0.5", 26, "0.5", "write a value that is"),
    circuit(
        "a jitter of 1", "recovery_timeout_jitter: 100%", 26, "'100%'", "write a value that is"
    ),
    circuit("a misspelt exception", "expected_exceptions: [OSEror]", 23, "'OSEror'", "OSError?"),
    circuit("a Java exception", "ignored_exceptions: [Exception, 5]", 33, "5", "names of classes"),
    circuit("one exception", "expected_exceptions: OSError", 22, "'OSError'", "write [OSError]"),
    circuit(
        "a tag", "recovery_timeout: !!python/name:os.system ''", 19, "the tag", "remove the tag"
    ),
    circuit(
        "a function", "classify_result: 'os:system'", 1, "classify_result", "give functions in"
    ),
]

KEYS = [
    circuit("a misspelt key", "recovery_timeut: 5s", 1, "recovery_timeut", "recovery_timeout?"),
    circuit(
        "a key with hyphens", "failure-threshold: 5", 1, "failure-threshold", "failure_threshold?"
    ),
    circuit("a key of nothing", "colour: red", 1, "colour", "remove it"),
    circuit(
        "a key in camel case", "failureThreshold: 5", 1, "failureThreshold", "failure_threshold?"
    ),
    whole(
        "a key twice",
        "fusewire:\n  breakers:\n    circuits:\n      a: {}\n      a: {mode: disabled}\n",
        ("5:7", "'a' again", "remove one of them: the first is in line 4"),
    ),
    whole("a section that is none", "fusewire: {breaker: {}}", ("1:12", "breaker", "breakers?")),
    whole(
        "a circuit without a mapping",
        "fusewire: {breakers: {circuits: {a: 5}}}",
        ("1:37", "5", "{}"),
    ),
    whole("circuits as a list", "fusewire: {breakers: {circuits: [a]}}", ("1:33", "a list", "{}")),
    whole("nothing below a key", "fusewire:\n  breakers:\n", ("2:12", "null", "write {} for none")),
    whole(
        "a base of defaults",
        "fusewire: {breakers: {defaults: {base: a}}}",
        ("1:34", "base", "remove"),
    ),
    whole("an empty key", "fusewire: {'': 5}", ("1:12", "", "remove it")),
    whole("a list as a key", "fusewire: {[a]: 5}", ("1:12", "a mapping or list", "quote the key")),
]

BASES = [
    circuit("an unknown base", "base: money", 7, "money", "add it to breakers.bases"),
    circuit("a preset as a base", "base: critical", 7, "critical", "write preset: critical"),
    whole(
        "a misspelt base",
        "fusewire: {breakers: {bases: {money: {}}, circuits: {a: {base: mony}}}}",
        ("1:64", "mony", "did you mean money?"),
    ),
    whole(
        "a cycle of bases",
        "fusewire:\n  breakers:\n    bases:\n      a: {base: b}\n      b: {base: a}\n",
        ("4:17", "the cycle a → b → a", "remove one"),
        ("5:17", "the cycle b → a → b", "remove one"),
    ),
    whole(
        "a circle of bases",
        "fusewire: {breakers: {bases: {a: {base: a}}, circuits: {c: {base: a}}}}",
        ("1:41", "the cycle a → a", "remove one"),
    ),
]

TOGETHER = [
    circuit("more calls than the window", "window_calls: 5", -3, "10", "lower it, or raise window"),
    circuit(
        "two windows", "window_calls: 50, window_seconds: 5", 35, "5", "remove one of window_calls"
    ),
    circuit(
        "nothing that opens", "failure_threshold: null", 20, "null", "give it a number, or set"
    ),
    circuit(
        "a rate without a window", "failure_rate_threshold: 0.5", 25, "0.5", "add window_calls"
    ),
    circuit("a lower maximum", "recovery_timeout_max: 5s", 23, "5", "raise it, or lower recovery"),
    circuit("hanging without a rate", "open_on_hanging: true", 18, "true", "set slow_call_rate"),
    whole(
        "a base that fits nobody is said once",
        "fusewire: {breakers: {bases: {b: {failure_rate_threshold: 0.5}},"
        " circuits: {x: {base: b}, y: {base: b}}}}",
        ("1:59", "0.5", "add window_calls: 100, for example"),
    ),
    whole(
        "defaults that do not fit",
        "fusewire: {breakers: {defaults: {window_calls: 5}}}",
        ("1:48", "10", "lower it, or raise window_calls"),
    ),
]

CONSUMERS = [
    whole(
        "delays that shrink",
        "fusewire: {consumers: {orders: {retry: {delays: [5s, 1s]}}}}",
        ("1:49", "a list", "sort them"),
    ),
    whole(
        "one delay that is none",
        "fusewire: {consumers: {orders: {retry: {delays: [1s, x]}}}}",
        ("1:54", "'x'", "write it as in 30s"),
    ),
    whole(
        "a scope that is none",
        "fusewire: {consumers: {orders: {replay: {scope: clusters}}}}",
        ("1:49", "'clusters'", "did you mean cluster?"),
    ),
    whole(
        "more in flight than AMQP counts",
        "fusewire: {consumers: {orders: {replay: {concurrency: 70000}}}}",
        ("1:55", "70000", "write a value that is accepted"),
    ),
    whole(
        "a rate of messages as a text",
        "fusewire: {consumers: {orders: {replay: {rate: 5/s}}}}",
        ("1:48", "'5/s'", "write a plain number"),
    ),
    whole(
        "a policy's keys one level too high",
        "fusewire: {consumers: {orders: {max_attempts: 5}}}",
        ("1:33", "max_attempts", "remove it"),
    ),
]

TEXTS = [
    whole("nothing", "", ("1:1", "nothing", "begin the file with fusewire:")),
    whole("a comment", "# later\n", ("1:1", "nothing", "begin the file with fusewire:")),
    whole("a list", "- a\n", ("1:1", "a list", "begin the file with fusewire:")),
    whole("a word", "fusewire", ("1:1", "a value", "begin the file with fusewire:")),
    whole(
        "another's file", "server: {port: 80}", ("1:1", "a mapping with neither", "below the key")
    ),
    whole(
        "a misspelt top", "fusewires: {}", ("1:1", "the key fusewires", "did you mean fusewire?")
    ),
    whole(
        "a dotted top", "fusewire.breakers: {}", ("1:1", "the key fusewire.breakers", "fusewire?")
    ),
    whole("a tab", "fusewire:\n\tbreakers: {}\n", ("2:1", "what is none", "spaces, not tabs")),
    whole("an open quote", 'fusewire: "', ("1:12", "what is none", "close the quote")),
    whole("an open bracket", "fusewire: {breakers: [", ("2:1", "what is none", "close the")),
    whole(
        "a colon too many", "fusewire: a: b", ("1:12", "what is none", "quote a value that holds")
    ),
    whole("an unknown alias", "fusewire: *a", ("1:11", "*a", "write &a at the value")),
    whole("an alias of what it is in", "fusewire: &a {breakers: *a}", ("1:25", "*a", "write &a")),
    whole("a control character", "fusewire: \x01", ("", "what is none", "save the file as UTF-8")),
    whole(
        "too many levels",
        "fusewire: {}\nx: " + "[" * 60 + "]" * 60,
        ("2:53", "one that is deeper", "close"),
    ),
    whole(
        "a second document", f"{OK}---\n{OK}", ("3:1", "one for every profile", "remove the line")
    ),
    whole("a merge of a text", "fusewire: {<<: a}", ("1:16", "something else", "write <<: *name")),
]

VARIABLES = [
    whole(
        "a misspelt variable",
        OK,
        ("", "FUSEWIRE_BREAKER__X", "did you mean FUSEWIRE_BREAKERS__X?"),
        FUSEWIRE_BREAKER__X="1",
    ),
    whole(
        "a misspelt variable of circuits",
        OK,
        ("", "FUSEWIRE_CIRCUIT", "did you mean FUSEWIRE_CIRCUITS?"),
        FUSEWIRE_CIRCUIT="{}",
    ),
    whole(
        "a key in a variable's name",
        OK,
        ("", "recovery_timeut", "did you mean recovery_timeout?"),
        FUSEWIRE_BREAKERS__DEFAULTS__RECOVERY_TIMEUT="1s",
    ),
    whole(
        "a value in a variable",
        OK,
        ("", "'1 sec'", "write 1s"),
        FUSEWIRE_BREAKERS__DEFAULTS__RECOVERY_TIMEOUT="1 sec",
    ),
    whole("an empty variable", OK, ("", "null", "write {}"), FUSEWIRE_CIRCUITS=""),
    whole("JSON that is none", OK, ("2:1", "what is none", "close the"), FUSEWIRE_CIRCUITS="{"),
    whole(
        "an unset variable in a file",
        "fusewire: {breakers: {defaults: {recovery_timeout: '${WAIT}'}}}",
        ("1:52", "no such variable", "set WAIT, or did you mean WAITS?"),
        WAITS="1s",
    ),
    whole(
        "a placeholder that is open",
        "fusewire: {breakers: {defaults: {recovery_timeout: '${WAIT'}}}",
        ("1:52", "${WAIT}", "close it with }"),
    ),
]

CORPUS = [*VALUES, *KEYS, *BASES, *TOGETHER, *CONSUMERS, *TEXTS, *VARIABLES]
