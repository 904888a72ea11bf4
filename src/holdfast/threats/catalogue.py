"""The catalogue that ships with Holdfast: threats, the probes that measure them, the controls that lower them, and incidents.

Wording and ids are Holdfast's own; identifiers of MITRE ATLAS, OWASP, NIST AI 100-2e2025 and the OWASP AI Exchange are cross
references. The rules (`when`) are data: a mapping from a fact of the system file to the values under which the threat applies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from holdfast.core.evidence import Document
from holdfast.threats.yamlfile import Limits, parse_yaml

Stage = Literal["data", "supply", "federated", "deploy", "inference", "ops"]
ThreatGoal = Literal["integrity", "confidentiality", "availability", "abuse"]
AtlasTechnique = Annotated[str, Field(pattern=r"^AML\.T\d{4}(\.\d{3})?$")]
AtlasMitigation = Annotated[str, Field(pattern=r"^AML\.M\d{4}$")]
AtlasCase = Annotated[str, Field(pattern=r"^AML\.CS\d{4}$")]
Text = Annotated[str, Field(min_length=1)]
_OWN_LIMITS = Limits(nodes=20_000, aliases=0)


class ThreatEntry(Document):
    """A threat to machine-learning systems.

    Attributes:
        id, name, stage, goal, what: its own id and wording.
        when: the rule: keys are AND-ed, values OR-ed, and an empty rule always applies.
        atlas, owasp_ml, owasp_llm_2025, nist, ai_exchange: cross references; empty where the framework has no entry.
        probes, controls: ids of the catalogue.
        mitigations: ATLAS mitigations that fit; `atlas_confirmed_mitigations` are those that ATLAS itself links.
    """

    id: Annotated[str, Field(pattern=r"^T-[A-Z]{3}-\d{2}$")]
    name: Text
    stage: Stage
    goal: ThreatGoal
    what: Text
    when: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]
    atlas: tuple[AtlasTechnique, ...]
    owasp_ml: tuple[Annotated[str, Field(pattern=r"^ML\d{2}$")], ...]
    owasp_llm_2025: tuple[Annotated[str, Field(pattern=r"^LLM(0[1-9]|10)$")], ...] = ()
    nist: tuple[Annotated[str, Field(pattern=r"^NISTAML\.\d{2,3}$")], ...]
    ai_exchange: Text
    probes: Annotated[tuple[str, ...], Field(min_length=1)]
    controls: Annotated[tuple[str, ...], Field(min_length=1)]
    mitigations: tuple[AtlasMitigation, ...]
    atlas_confirmed_mitigations: tuple[AtlasMitigation, ...]


class ProbeEntry(Document):
    """A measurement: what it counts, along which axis of the attacker's capability, with which access."""

    measures: Text
    axis: Text
    access: Text
    kind: Literal["rate", "survival", "curve", "check"]


class ControlEntry(Document):
    """A change that lowers a risk; `verb` is the part of Holdfast that makes it."""

    verb: Literal["harden", "serve", "seal", "measure", "federate", "monitor", "recover", "govern"]
    name: Text
    atlas_mitigations: tuple[AtlasMitigation, ...]
    ai_exchange: tuple[str, ...]
    topic: Text


class Replay(Document):
    """An incident made executable: the attack must succeed unprotected, or the replay is void."""

    data: Text
    build: Text
    attack: Text
    detect: Text
    contain: Text
    recover: Text
    verify: Text
    cpu_budget: Text


class Incident(Document):
    """Something that happened, an exercise, a publication or an illustration, in own words, with its replay."""

    id: Annotated[str, Field(pattern=r"^I-\d{2}$")]
    name: Text
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None
    kind: Literal["incident", "exercise", "publication", "illustrative"]
    atlas_case: AtlasCase | None
    facts_from: Text
    happened: Text
    impact: Text
    techniques: tuple[AtlasTechnique, ...]
    lessons: tuple[Text, ...]
    threats: Annotated[tuple[str, ...], Field(min_length=1)]
    controls: Annotated[tuple[str, ...], Field(min_length=1)]
    recovery: tuple[Text, ...]
    replay: Replay
    references: tuple[str, ...]


class Names(Document):
    """What the identifiers of the public frameworks stand for."""

    atlas_techniques: dict[AtlasTechnique, Text]
    atlas_mitigations: dict[AtlasMitigation, Text]
    nist: dict[str, Text]
    owasp_ml: dict[str, Text]


class AtlasSource(Document):
    """The release of MITRE ATLAS that the identifiers were checked against."""

    repository: str
    tag: str
    data_version: str
    commit: str
    licence: str


class Sources(Document):
    """The editions of the public frameworks."""

    atlas: AtlasSource
    owasp_ml: str
    ai_exchange: str
    nist: str


class Catalogue(Document):
    """Everything, with every reference checked.

    Attributes:
        format: the version of this form.
        facts: the facts of the system file that rules look at, each with its possible values.
        threats, probes, controls, incidents, names, sources: see there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    format: Literal["threat-catalogue/1"] = Field(alias="schema")
    sources: Sources
    facts: dict[str, Annotated[tuple[Text, ...], Field(min_length=2)]]
    threats: Annotated[tuple[ThreatEntry, ...], Field(min_length=1)]
    probes: dict[Annotated[str, Field(pattern=r"^P(-[A-Z]+){1,2}$")], ProbeEntry]
    controls: dict[Annotated[str, Field(pattern=r"^C-[A-Z]+$")], ControlEntry]
    names: Names
    incidents: tuple[Incident, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, ThreatEntry]:
        """The threats by id."""
        return {threat.id: threat for threat in self.threats}

    @model_validator(mode="after")
    def _every_reference_exists(self) -> Catalogue:
        problems = [
            *_twice("threat", (threat.id for threat in self.threats)),
            *_twice("incident", (incident.id for incident in self.incidents)),
        ]
        for threat in self.threats:
            problems += [
                *_absent(threat.id, "fact", threat.when, self.facts),
                *(
                    f"{threat.id}: {fact} has no value {value}"
                    for fact, values in threat.when.items()
                    for value in values
                    if value not in self.facts.get(fact, ())
                ),
                *_absent(threat.id, "probe", threat.probes, self.probes),
                *_absent(threat.id, "control", threat.controls, self.controls),
                *_absent(threat.id, "name of technique", threat.atlas, self.names.atlas_techniques),
                *_absent(threat.id, "name of mitigation", threat.mitigations, self.names.atlas_mitigations),
                *_absent(threat.id, "mitigation", threat.atlas_confirmed_mitigations, threat.mitigations),
                *_absent(threat.id, "name of NIST attack", threat.nist, self.names.nist),
                *_absent(threat.id, "name of OWASP entry", threat.owasp_ml, self.names.owasp_ml),
            ]
        for name, control in self.controls.items():
            problems += _absent(name, "name of mitigation", control.atlas_mitigations, self.names.atlas_mitigations)
        threats = {threat.id for threat in self.threats}
        for incident in self.incidents:
            problems += _absent(incident.id, "threat", incident.threats, threats)
            problems += _absent(incident.id, "control", incident.controls, self.controls)
        used = {name for threat in self.threats for name in (*threat.probes, *threat.controls)}
        problems += [f"no threat uses {name}" for name in (*self.probes, *self.controls) if name not in used]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _absent(owner: str, kind: str, wanted: Iterable[str], stated: Iterable[str]) -> list[str]:
    present = set(stated)
    return [f"{owner}: there is no {kind} {item}" for item in wanted if item not in present]


def _twice(kind: str, ids: Iterable[str]) -> list[str]:
    return [f"the {kind} {name} is given twice" for name, count in Counter(ids).items() if count > 1]


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """The catalogue of this release; read once."""
    folder = files("holdfast.threats") / "data"
    parts = {
        name: parse_yaml((folder / name).read_bytes(), name, _OWN_LIMITS).unwrap() for name in ("threats.yaml", "incidents.yaml")
    }
    return Catalogue.model_validate({**parts["threats.yaml"], "incidents": parts["incidents.yaml"]["incidents"]})
