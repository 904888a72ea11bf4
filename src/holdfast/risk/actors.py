"""Who can carry out which threat: declared actors by their access, an unnamed attacker where nobody declared can, and
ordinary operation for what needs no attacker.

Which access a threat needs is what the catalogue says of the probes that measure it. A threat without a known probe can be
carried out by everybody.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.core.errors import ConfigurationError
from holdfast.risk.defaults import ATTACKER, ATTEMPTS, ORDINARY
from holdfast.risk.register import Source
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat
from holdfast.threats.system import ActorSection, Capability, Range, System

_LABELS = frozenset({"label", "text"})
_SCORES = _LABELS | {"scores", "explanations"}
_WEIGHTS = _SCORES | {"white-box"}
POWERS: Mapping[str, frozenset[str]] = {
    "labels": _LABELS,
    "scores": _SCORES,
    "gradients": _WEIGHTS,
    "model file": _WEIGHTS | {"files", "weights"},
    "host": _WEIGHTS | {"files", "weights", "host", "data"},
    "updates": _WEIGHTS | {"updates"},
    "training rows": frozenset({"training rows", "data"}),
    "feedback": frozenset({"feedback"}),
    "network": frozenset({"network"}),
    "none": frozenset(),
}
"""The catalogue's access words that each declared access satisfies: who holds the model also asks it, and a participant of
federated training holds it."""

WITHOUT_ATTACKER = frozenset({"offline", "stream", "records"})
"""Access words of threats that come about by themselves."""

AXES: Mapping[str, str] = {"queries": "queries", "poison fraction": "poison_share"}
"""The fields of an actor by the axis that they declare a capability on."""

MOST_ATTEMPTS = 1e9
WIDEST = 1e6
"""Largest attempts a year, and largest ratio of `high` to `low`, that are taken for a declaration and not for a slip."""


@dataclass(frozen=True, kw_only=True)
class RiskActor:
    """An actor as the Monte Carlo needs it.

    Attributes:
        key: a stable name for ids and seeds.
        name: as declared.
        powers: the catalogue's access words that the actor satisfies; None, for the unnamed attacker, means all of attackers.
        attempts, attempts_source: a year, and whose word that is.
        capability, capability_source: by axis.
    """

    key: str
    name: str
    powers: frozenset[str] | None
    attempts: Range
    attempts_source: Source
    capability: Mapping[str, Capability] = field(default_factory=dict)
    capability_source: Mapping[str, Source] = field(default_factory=dict)

    def may(self, probe: str) -> bool:
        """Whether the actor has the access of the attack that the probe makes; a probe without known access asks for none."""
        access = probe_access(probe)
        if self.powers is None:
            return access not in WITHOUT_ATTACKER
        return access is None or access in self.powers


def probe_access(probe: str) -> str | None:
    """The access that the catalogue names for a probe; None for a probe that it does not know."""
    entry = load_catalogue().probes.get(probe)
    return None if entry is None else entry.access


def able_actors(system: System, threat: Threat) -> tuple[str, ...]:
    """The names of the declared actors who can carry out a threat, in their declared order."""
    declared = {actor.name for actor in system.actors}
    return tuple(dict.fromkeys(actor.name for actor in actors_of(system, threat) if actor.name in declared))


def actors_of(system: System, threat: Threat, extra_probes: tuple[str, ...] = ()) -> tuple[RiskActor, ...]:
    """Everybody who can carry out a threat, at least one.

    Args:
        system: the system file.
        threat: which threat.
        extra_probes: ids of probes that measured it besides those that the catalogue names.

    Raises:
        ConfigurationError: a declared number of attempts is beyond belief.
    """
    attackers, natural = _declared(system)
    probes = dict.fromkeys((*threat.probes, *extra_probes))
    needs_attacker = [probe for probe in probes if probe_access(probe) not in WITHOUT_ATTACKER]
    found: list[RiskActor] = []
    if needs_attacker or not probes:
        found += [actor for actor in attackers if not probes or any(actor.may(probe) for probe in needs_attacker)]
        found = found or [_assumed(ATTACKER, None)]
    if len(needs_attacker) < len(probes):
        found += natural or [_assumed(ORDINARY, WITHOUT_ATTACKER)]
    return tuple(found)


def slug(name: str) -> str:
    """A short name of letters, digits and hyphens; names that lose something on the way get a digest of the whole."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    short = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    kept = re.sub(r"[\s_-]+", "-", name.lower()).strip("-") == short
    return short if kept and short else f"{short or 'actor'}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"


def is_default(system: System, *paths: str) -> bool:
    """Whether one of the dotted fields, or a field above or below it, holds a tool's default."""
    marks = system.defaults
    return any(path == mark or path.startswith(f"{mark}.") or mark.startswith(f"{path}.") for path in paths for mark in marks)


def checked_range(value: Range, where: str) -> Range:
    """The range itself.

    Raises:
        ConfigurationError: it spans so much that it says nothing.
    """
    if value.high / value.low > WIDEST:
        raise ConfigurationError(
            f"the range {value.low:g} to {value.high:g} spans more than a factor of a million",
            where=where,
            hint="low and high are the 5 % and 95 % points of what you expect.",
        )
    return value


def _declared(system: System) -> tuple[list[RiskActor], list[RiskActor]]:
    """The declared attackers, and the declared occasions of ordinary operation."""
    attackers: list[RiskActor] = []
    natural: list[RiskActor] = []
    seen: dict[str, int] = {}
    for index, section in enumerate(system.actors):
        key = slug(section.name)
        seen[key] = seen.get(key, 0) + 1
        key = key if seen[key] == 1 else f"{key}-{seen[key]}"
        (natural if section.access == "none" else attackers).append(_actor(system, section, index, key))
    return attackers, natural


def _actor(system: System, section: ActorSection, index: int, key: str) -> RiskActor:
    places = [f"actors.{place}" for place in (index, section.name)]
    ordinary = section.access == "none"
    attempts, source = ATTEMPTS[ORDINARY if ordinary else ATTACKER], "default"
    if section.attempts_per_year is not None:
        where = f"{places[0]}.attempts_per_year"
        attempts = checked_range(section.attempts_per_year, where)
        if attempts.high > MOST_ATTEMPTS:
            raise ConfigurationError(f"{attempts.high:g} attempts a year are more than a thousand million", where=where)
        source = "default" if is_default(system, *(f"{place}.attempts_per_year" for place in places)) else "declared"
    capability: dict[str, Capability] = {}
    sources: dict[str, Source] = {}
    for axis, name in AXES.items():
        value: Capability | None = getattr(section, name)
        if value is not None:
            checked_range(Range(low=value.typical, high=value.high), f"{places[0]}.{name}")
            capability[axis] = value
            sources[axis] = "default" if is_default(system, *(f"{place}.{name}" for place in places)) else "declared"
    return RiskActor(
        key=key,
        name=section.name,
        powers=WITHOUT_ATTACKER if ordinary else POWERS[section.access],
        attempts=attempts,
        attempts_source="default" if source == "default" else "declared",
        capability=capability,
        capability_source=sources,
    )


def _assumed(name: str, powers: frozenset[str] | None) -> RiskActor:
    return RiskActor(key=slug(name), name=name, powers=powers, attempts=ATTEMPTS[name], attempts_source="default")
