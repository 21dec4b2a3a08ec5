"""Documents for profiles: which of them are active, and what is said where nobody can know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.config import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config, Problem

SPRING = "resilience4j.circuitbreaker.instances.a.slidingWindowSize"


def is_active(config: Config) -> bool:
    return config.circuits["a"].settings.window_calls == 7


def text(activation: str) -> str:
    return f"{SPRING}: 5\n---\n{activation}\n{SPRING}: 7\n"


EXPRESSIONS = {
    "prod & (eu | us)": {"prod,us": True, "us": False, "prod": False, "eu,prod": True},
    "(prod & eu) | us": {"us": True, "eu": False, "prod,eu": True},
    "!(prod | eu)": {"dev": True, "eu": False, "": True},
    "!prod": {"": True, "prod": False},
    "! prod": {"dev": True, "prod": False},
    "((prod))": {"prod": True, "dev": False},
    "(!prod) & eu": {"eu": True, "prod,eu": False},
    "default": {"": True, "prod": False, "default": True},
}


@pytest.mark.parametrize(
    ("expression", "profile", "active"),
    [
        (one, profile, is_true)
        for one, cases in EXPRESSIONS.items()
        for profile, is_true in cases.items()
    ],
)
def test_expressions_of_profiles_mean_what_they_mean_to_spring(
    load_text: Callable[..., Config], expression: str, profile: str, active: object
) -> None:
    config = load_text(text(f"spring.config.activate.on-profile: '{expression}'"), profile=profile)
    assert is_active(config) is active


@pytest.mark.parametrize(
    "expression", ["prod & eu | us", "(prod", "prod)", "prod &", "", "prod eu", "()", "!", "${P}"]
)
def test_an_expression_that_is_none_is_a_problem(
    problems_of: Callable[..., tuple[Problem, ...]], expression: str
) -> None:
    (problem,) = problems_of(
        text(f"spring.config.activate.on-profile: '{expression}'"), profile="prod"
    )
    assert str(problem) == (
        "1.yaml:3:36: the profile of a document must be a name, or names with !, & and |, got "
        f"'{expression}'; close each bracket, and put brackets around & where | stands beside it"
    )


@pytest.mark.parametrize(
    "activation",
    [
        "spring.profiles: prod",
        "spring: {profiles: prod}",
        "spring: {profiles: [eu, prod]}",
        "spring.config.activate.onProfile: prod",
        "Spring: {config.activate: {on_profile: prod}}",
        "spring.config: {import: x}\nspring: {config: {activate: {on-profile: prod}}}",
    ],
)
def test_a_profile_may_be_named_as_spring_may(
    load_text: Callable[..., Config], activation: str
) -> None:
    assert is_active(load_text(text(activation), profile="prod"))
    assert not is_active(load_text(text(activation), profile="dev"))


def test_a_mapping_of_profiles_names_none(load_text: Callable[..., Config]) -> None:
    assert is_active(load_text(text("spring.profiles: {include: prod, group: {a: b}}")))


def test_a_document_for_a_platform_is_a_problem(
    problems_of: Callable[..., tuple[Problem, ...]], load_text: Callable[..., Config]
) -> None:
    platform = "spring.config.activate.on-cloud-platform: kubernetes"
    (problem,) = problems_of(text(platform))
    assert str(problem) == (
        "1.yaml:3:43: a document must be for a profile, and not for a platform, which nobody knows "
        "here, got one for kubernetes; write spring.config.activate.on-profile, and give that "
        "profile"
    )
    load_text(f"{SPRING}: 5\n---\n{platform}\nserver: {{port: 1}}\n")


def test_profiles_that_only_spring_reads_are_a_warning(load_text: Callable[..., Config]) -> None:
    prod = text("spring.config.activate.on-profile: prod")
    (warning,) = load_text(prod, env={"SPRING_PROFILES_ACTIVE": "prod"}).remarks
    assert warning.severity is Severity.WARNING
    assert str(warning) == (
        "SPRING_PROFILES_ACTIVE: the profile must be given to load() or to the command, because "
        "files are read for that one alone, got only prod here, so that documents for profiles "
        "were left out; give profile='prod', or --profile prod"
    )
    (warning,) = load_text(f"spring.profiles.active: [eu, prod]\n{prod}").remarks
    assert (warning.place.line, warning.remedy) == (
        1,
        "give profile='eu,prod', or --profile eu,prod",
    )


@pytest.mark.parametrize(
    ("first", "env", "profile"),
    [
        ("", {"SPRING_PROFILES_ACTIVE": "prod"}, "dev"),
        ("", {"SPRING_PROFILES_ACTIVE": " "}, ""),
        ("", {}, ""),
        ("spring.profiles.active: '${NAME:prod}'\n", {}, ""),
    ],
)
def test_where_a_profile_is_given_or_none_is_known_nothing_is_said(
    load_text: Callable[..., Config], first: str, env: dict[str, str], profile: str
) -> None:
    prod = text("spring.config.activate.on-profile: prod")
    assert load_text(f"{first}{prod}", env=env, profile=profile).remarks == ()
