"""The data-flow diagram of a system: trust zones, the components in them, and what flows between them, all from the system file.

What the file does not state appears as "not stated", with the least trust; nothing is left out for want of a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.threats.derivation import Threat
from holdfast.threats.system import ActorSection, System

NOT_STATED = "not stated"
_TRUST = {
    "reach": {"none": 80, "internal": 60, "partner": 30, "internet": 10},
    "deploy": {"server": 80, "cloud_tenant": 60, "edge": 40, "client_device": 20},
}
_INSIDE = {"data_sources": {"internal"}, "labels": {"internal"}, "base_model": {"none", "internal"}}
_STAGES = {
    "inference": "inference",
    "data": "data",
    "supply": "registry",
    "deploy": "model",
    "federated": "aggregator",
    "ops": "monitoring",
}
_ENTRIES = {
    "labels": "inference",
    "scores": "inference",
    "gradients": "inference",
    "network": "inference",
    "training rows": "data",
    "feedback": "data",
    "model file": "model",
    "host": "model",
    "updates": "aggregator",
}


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A part of the world with one level of trust, from 0 (anybody) to 100 (nobody but the owner)."""

    id: str
    name: str
    trust: int


@dataclass(frozen=True, kw_only=True)
class Component:
    """Something in a zone; `kind` is actor, person, process or store."""

    id: str
    name: str
    kind: str
    zone: str


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What goes from one component to another; `hostile` for an actor's way in."""

    id: str
    name: str
    source: str
    destination: str
    hostile: bool = False


@dataclass(kw_only=True)
class Diagram:
    """All zones, components and flows; ids are unique across the three, and every reference resolves."""

    zones: list[Zone] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def places(self, threat: Threat) -> tuple[str, ...]:
        """The components that a threat strikes, by the stage it belongs to."""
        return self.resolve(_STAGES.get(threat.stage, "inference"))

    def resolve(self, name: str) -> tuple[str, ...]:
        """The ids of the components that a role stands for, such as each data set for `data`."""
        return self.aliases.get(name, (name,))

    def zone(self, id: str, name: str, trust: int) -> None:  # noqa: A002
        self.zones.append(Zone(id=id, name=name, trust=trust))

    def component(self, id: str, name: str, kind: str, zone: str) -> None:  # noqa: A002
        self.components.append(Component(id=id, name=name, kind=kind, zone=zone))

    def flow(self, name: str, source: str, destination: str, *, hostile: bool = False) -> None:
        """A flow for each component that the two roles stand for."""
        for start in self.resolve(source):
            for end in self.resolve(destination):
                number = len(self.flows) + 1
                self.flows.append(Flow(id=f"flow-{number}", name=name, source=start, destination=end, hostile=hostile))


def draw(system: System) -> Diagram:
    """The diagram of a system."""
    facts = system.facts()
    diagram = Diagram()
    diagram.zone("zone-callers", f"Callers: {_said(facts, 'reach')}", _trust(facts, "reach"))
    diagram.zone("zone-serving", f"Serving: {_said(facts, 'deploy')}", _trust(facts, "deploy"))
    diagram.zone("zone-training", "Training", 80)
    _serving(diagram, system, facts)
    _training(diagram, system, facts)
    _suppliers(diagram, facts, system.silent_data())
    _federation(diagram, facts)
    _people(diagram, system, facts)
    _actors(diagram, system.actors)
    return diagram


def _serving(diagram: Diagram, system: System, facts: Mapping[str, tuple[str, ...]]) -> None:
    where = system.model.path or system.model.endpoint or system.model.entry or ""
    diagram.component("callers", "Callers", "person", "zone-callers")
    diagram.component("inference", f"Inference (authentication: {_said(facts, 'auth')})", "process", "zone-serving")
    diagram.component("model", f"Model {where} ({_said(facts, 'artifact_format')})", "store", "zone-serving")
    diagram.component("monitoring", "Logs and monitoring", "store", "zone-serving")
    diagram.flow("requests", "callers", "inference")
    diagram.flow(f"answers: {_said(facts, 'returns')}", "inference", "callers")
    if "exposed" in facts.get("explanations", ()):
        diagram.flow("explanations", "inference", "callers")
    diagram.flow("weights", "model", "inference")
    diagram.flow("events", "inference", "monitoring")


def _training(diagram: Diagram, system: System, facts: Mapping[str, tuple[str, ...]]) -> None:
    ids = []
    for number, item in enumerate(system.data, start=1):
        kinds = item.data_sensitivity if isinstance(item.data_sensitivity, list) else [item.data_sensitivity or NOT_STATED]
        ids.append(f"data-{number}")
        diagram.component(ids[-1], f"Data set {item.name}, sensitivity: {', '.join(kinds)}", "store", "zone-training")
    if not ids:
        ids.append("data-1")
        diagram.component("data-1", f"Training data ({NOT_STATED})", "store", "zone-training")
    diagram.aliases["data"] = tuple(ids)
    diagram.component("training", f"Training: {_said(facts, 'retrain')}", "process", "zone-training")
    diagram.component("registry", f"Releases: {_said(facts, 'registry')}", "store", "zone-training")
    diagram.flow("rows and labels", "data", "training")
    diagram.flow("model", "training", "registry")
    diagram.flow("release", "registry", "model")
    if "user_feedback" in facts.get("data_sources", ()) or "user_feedback" in facts.get("labels", ()):
        diagram.flow("feedback", "callers", "data")


def _suppliers(diagram: Diagram, facts: Mapping[str, tuple[str, ...]], silent: Mapping[str, tuple[str, ...]]) -> None:
    supplied = (
        ("data_sources", "supply-data", "Suppliers of rows", "rows", "data"),
        ("labels", "supply-labels", "Suppliers of labels", "labels", "data"),
        ("base_model", "supply-model", "Suppliers of the base model", "base model", "training"),
    )
    found = []
    for fact, name, title, what, into in supplied:
        values = (*facts.get(fact, ()), *((NOT_STATED,) if fact in silent or fact not in facts else ()))
        outside = [value for value in values if value not in _INSIDE[fact] | {"user_feedback"}]
        if outside:
            found.append((name, f"{title}: {', '.join(outside)}", what, into))
    if found:
        diagram.zone("zone-suppliers", "Suppliers", 20)
    for name, title, what, into in found:
        diagram.component(name, title, "process", "zone-suppliers")
        diagram.flow(what, name, into)


def _federation(diagram: Diagram, facts: Mapping[str, tuple[str, ...]]) -> None:
    if facts.get("federated", (NOT_STATED,)) == ("none",):
        diagram.aliases["aggregator"] = ("training",)
        return
    diagram.zone("zone-federation", f"Participants of training: {_said(facts, 'federated')}", 20)
    diagram.component("participants", "Participants", "process", "zone-federation")
    diagram.component("aggregator", "Aggregator", "process", "zone-training")
    diagram.flow("updates", "participants", "aggregator")
    diagram.flow("shared model", "aggregator", "participants")
    diagram.flow("model", "aggregator", "registry")


def _people(diagram: Diagram, system: System, facts: Mapping[str, tuple[str, ...]]) -> None:
    if facts.get("affects_people", (NOT_STATED,)) == ("none",):
        return
    diagram.zone("zone-people", f"People concerned: {_said(facts, 'affects_people')}", 50)
    diagram.component("decision", f"Decision: {system.people.decision or NOT_STATED}", "process", "zone-people")
    diagram.component("people", "People concerned", "person", "zone-people")
    diagram.flow("answers", "inference", "decision")
    diagram.flow("decisions", "decision", "people")


def _actors(diagram: Diagram, actors: Iterable[ActorSection]) -> None:
    listed = list(actors)
    if listed:
        diagram.zone("zone-actors", "Who may attack", 0)
    for number, actor in enumerate(listed, start=1):
        diagram.component(f"actor-{number}", actor.name, "actor", "zone-actors")
        if actor.access in _ENTRIES:
            diagram.flow(f"attacks with {actor.access}", f"actor-{number}", _ENTRIES[actor.access], hostile=True)


def _said(facts: Mapping[str, tuple[str, ...]], fact: str) -> str:
    return ", ".join(facts.get(fact, (NOT_STATED,)))


def _trust(facts: Mapping[str, tuple[str, ...]], fact: str) -> int:
    return min((_TRUST[fact].get(value, 0) for value in facts.get(fact, ())), default=0)
