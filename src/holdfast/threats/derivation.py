"""Which threats of the catalogue apply to a system, which do not, and the fact that decides it."""

from __future__ import annotations

from typing import Literal

from holdfast.core.evidence import Document

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
