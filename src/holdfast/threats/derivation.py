"""Which threats of the catalogue apply to a system, which do not, and the fact that decides it.

Each fact of a threat's rule is met, refuted or open:

1. met, if a stated value is among the rule's values;
2. open, if the system file, or one of its data sets, does not state it;
3. refuted, if it is stated everywhere and no value is among the rule's.

One refuted fact excludes the threat, whatever else is open. Else one open fact makes it unknown. Else it applies. So stating
a fact can remove a threat, and leaving one out never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from holdfast.core.evidence import Document
from holdfast.threats.catalogue import Catalogue, ThreatEntry, load_catalogue
from holdfast.threats.system import System

Applicability = Literal["applies", "excluded", "unknown"]


class Threat(Document):
    """A threat of the catalogue, as it stands for one system.

    Attributes:
        id, name, stage, goal, what: of the catalogue.
        applicability: `applies`, `excluded` by a stated fact, or `unknown` for want of one.
        because: one sentence with the deciding facts and their values.
        missing_facts: the facts that would decide an unknown.
        atlas, owasp_ml, nist, ai_exchange: identifiers of the public frameworks.
        probes, controls: catalogue ids.
    """

    id: str
    name: str
    stage: str
    goal: Literal["integrity", "confidentiality", "availability", "abuse"]
    what: str
    applicability: Applicability
    because: str
    missing_facts: tuple[str, ...] = ()
    atlas: tuple[str, ...] = ()
    owasp_ml: tuple[str, ...] = ()
    owasp_llm_2025: tuple[str, ...] = ()
    nist: tuple[str, ...] = ()
    ai_exchange: str = ""
    probes: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()


def derive(system: System, catalogue: Catalogue | None = None) -> tuple[Threat, ...]:
    """Every threat of the catalogue, in its order, with what it means for the system and why.

    Args:
        system: as described.
        catalogue: the one that ships with Holdfast, unless another is given.
    """
    catalogue = catalogue or load_catalogue()
    stated, silent = system.facts(), system.silent_data()
    return tuple(_judge(entry, stated, silent) for entry in catalogue.threats)


def _judge(entry: ThreatEntry, stated: Mapping[str, tuple[str, ...]], silent: Mapping[str, tuple[str, ...]]) -> Threat:
    met, refuted, missing = [], [], []
    for fact, accepted in entry.when.items():
        shared = [value for value in stated.get(fact, ()) if value in accepted]
        if shared:
            met.append(f"{fact} is {_listed(shared, 'and')}")
        elif fact not in stated or fact in silent:
            missing.append(fact)
        else:
            refuted.append(f"{fact} is {_listed(stated[fact], 'and')}")
    applicability: Applicability
    if refuted:
        applicability, because = "excluded", f"excluded: {'; '.join(refuted)}"
    elif missing:
        applicability, because = "unknown", _unknown(entry, missing, silent)
    else:
        applicability = "applies"
        because = f"applies: {'; '.join(met)}" if met else "applies: to every model"
    return Threat(
        **entry.model_dump(exclude={"when", "mitigations", "atlas_confirmed_mitigations"}),
        applicability=applicability,
        because=because,
        missing_facts=tuple(missing) if applicability == "unknown" else (),
    )


def _unknown(entry: ThreatEntry, missing: Sequence[str], silent: Mapping[str, tuple[str, ...]]) -> str:
    unstated = []
    for fact in missing:
        where = f" for the data set {_listed(silent[fact], 'and')}" if fact in silent else ""
        unstated.append(f"{fact} is not stated{where}")
    would = " and ".join(f"{fact} is {_listed(entry.when[fact], 'or')}" for fact in missing)
    if len(missing) == 1:
        would = f"it is {_listed(entry.when[missing[0]], 'or')}"
    return f"unknown: {' and '.join(unstated)}; the threat applies if {would}"


def _listed(values: Sequence[str], word: str) -> str:
    if len(values) == 1:
        return values[0]
    return f"{', '.join(values[:-1])} {word} {values[-1]}"
