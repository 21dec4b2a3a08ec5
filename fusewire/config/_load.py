"""Loading: files and variables become one value, or one error with all their problems."""

from __future__ import annotations

import dataclasses
import functools
import os
from types import MappingProxyType
from typing import TYPE_CHECKING

from fusewire._validation import invalid
from fusewire.config._checking import Layer, check_document
from fusewire.config._config import Config
from fusewire.config._environment import read_environment
from fusewire.config._files import (
    OURS,
    is_for_us,
    properties_of,
    read_file,
    says_nothing,
    sections_of,
)
from fusewire.config._forwarders import Forwarders
from fusewire.config._placeholders import Placeholders
from fusewire.config._problems import ConfigError, Problem, Severity
from fusewire.config._profiles import active_of, forgotten
from fusewire.config._resolving import Resolver
from fusewire.config._spring import Spring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fusewire.config._tree import Document


def load(
    *files: str | os.PathLike[str],
    profile: str | Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    java_exceptions: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Read settings from files and from the environment, and check all of them.

    What comes first in this list counts most: variables, a later file, an earlier file. Within a
    file a later document counts more. Nothing is imported, and no code is run. Remarks are logged:
    warnings at WARNING, notes at INFO.

    Args:
        files: files in YAML, or in JSON if their names end with ``.json``: of our own form, or of
            Spring Boot.
        profile: the profile, or several, whose documents are read besides those for all.
        env: the environment; by default ``os.environ``. ``{}`` for none.
        java_exceptions: what Java classes that a Spring Boot file names are in Python, such as
            ``{"com.shop.PaymentException": "shop.errors.PaymentError"}``.

    Raises:
        ConfigError: something is wrong. It lists all problems of all files and variables.
        SettingsError: `profile` is neither a name nor several.
    """
    config = read(*files, profile=profile, env=env, java_exceptions=java_exceptions)
    config.log_remarks()
    return config


def read(
    *files: str | os.PathLike[str],
    profile: str | Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    java_exceptions: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Do what :func:`load` does, and log nothing."""
    profiles = _checked_profiles(profile)
    variables = os.environ if env is None else env
    documents: list[Document] = []
    problems: list[Problem] = []
    left_out = False
    for file in files:
        in_file, found = read_file(file)
        active, unclear = active_of(in_file, profiles)
        documents += active
        problems += [*found, *unclear]
        left_out |= any(is_for_us(each) for each in in_file if each not in active)
    if left_out and not profiles and (warning := forgotten(documents, variables)) is not None:
        problems.append(warning)
    placeholders = Placeholders(variables, properties_of(documents))
    for document in documents:
        placeholders.replace_in(document.root, sections_of(document))
    from_variables, found = read_environment(variables, documents)
    problems += [*placeholders.problems, *found]
    whole, found = _put_together([*documents, *from_variables], java_exceptions, variables)
    problems += _elsewhere(found, problems)
    again = functools.partial(
        read, *files, profile=profiles, env=env, java_exceptions=java_exceptions
    )
    names = tuple(map(str, files))
    config = _resolved(whole, problems, [*names, *sorted(variables)])
    remarks = config.remarks
    if names and _is_empty(config) and all(one.severity is Severity.NOTE for one in remarks):
        remarks = (says_nothing(names, left_out=left_out), *remarks)
    return dataclasses.replace(config, remarks=remarks, files=names, read_again=again)


def _put_together(
    documents: list[Document],
    java_exceptions: Mapping[str, str],
    variables: Mapping[str, str],
) -> tuple[Layer, list[Problem]]:
    """Return what documents say together, of which later ones count more, and their problems."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    spring, springs = Spring(java_exceptions), None
    for document in documents:
        if spring.read(document):
            springs = len(layers)  # all of them count as the last one: they inherit from each other
        if OURS in document.root:
            layer, found = check_document(document)
            layers.append(layer)
            problems += found
    if springs is not None:
        spring.override(variables)
        layers.insert(springs, spring.to_layer())
    whole = Layer()
    for layer in layers:
        whole.add(layer)
    return whole, [*problems, *spring.problems]


def _is_empty(config: Config) -> bool:
    return not (config.defaults or config.circuits or config.consumers or config.forwarders)


def _checked_profiles(profile: object) -> tuple[str, ...]:
    names = (profile,) if isinstance(profile, str) else profile
    if not isinstance(names, tuple | list) or not all(isinstance(one, str) for one in names):
        raise invalid("profile", "a name, or a list of names", profile)
    return tuple(one.strip() for name in names for one in name.split(",") if one.strip())


def _elsewhere(found: list[Problem], known: list[Problem]) -> list[Problem]:
    """Return the problems at places that have none yet: the others only follow from those."""
    places = {problem.place[:3] for problem in known}
    return [problem for problem in found if problem.place[:3] not in places]


def _resolved(layer: Layer, problems: list[Problem], sources: list[str]) -> Config:
    """Put everything together.

    Raises:
        ConfigError: something is wrong, there or before.
    """
    resolver = Resolver(layer)
    defaults = resolver.defaults()
    circuits = {circuit.name: circuit for circuit in resolver.circuits()}
    consumers = dict(resolver.consumers())
    forwarding = Forwarders(layer)
    forwarders = dict(forwarding.resolved())
    order = {source: index for index, source in enumerate(sources)}
    found = sorted(
        {*problems, *resolver.problems, *forwarding.problems},
        key=lambda one: (
            order.get(one.place.source, -1),
            one.place.line,
            one.place.column,
            one.subject,
        ),
    )
    if any(one.severity is Severity.ERROR for one in found):
        raise ConfigError(found)
    return Config(
        defaults=defaults,
        circuits=MappingProxyType(circuits),
        consumers=MappingProxyType(consumers),
        forwarders=MappingProxyType(forwarders),
        ready_needs=tuple(layer.ready_needs),
        remarks=tuple(found),
    )
