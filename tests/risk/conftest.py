"""Systems, threats and evidence to quantify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast.core.evidence import Evidence, Row
from holdfast.threats.derivation import Threat
from holdfast.threats.system import System

MakeThreat = Callable[..., Threat]
MakeEvidence = Callable[..., Evidence]
MakeSystem = Callable[..., System]

CLINICIAN = {
    "name": "curious clinician",
    "access": "scores",
    "queries": {"typical": 20, "high": 100},
    "attempts_per_year": {"low": 1, "high": 8},
}
BROKER = {
    "name": "data broker",
    "access": "labels",
    "queries": {"typical": 500, "high": 5000},
    "attempts_per_year": {"low": 0.2, "high": 2},
}
SUPPLIER = {
    "name": "row supplier",
    "access": "training rows",
    "poison_share": {"typical": 0.005, "high": 0.03},
    "attempts_per_year": {"low": 0.02, "high": 0.3},
}


@pytest.fixture
def threat() -> MakeThreat:
    def make(name: str = "T-EVA-02", probes: tuple[str, ...] = ("P-EVA-SCORE",), goal: str = "integrity", **more: Any) -> Threat:
        fields = {"name": "A threat", "stage": "inference", "what": "x", "applicability": "applies", "because": "stated", **more}
        return Threat(id=name, goal=goal, probes=probes, **fields)

    return make


@pytest.fixture
def evidence() -> MakeEvidence:
    def make(
        capabilities: Sequence[float | None] = (),
        probe: str = "P-EVA-SCORE",
        threats: tuple[str, ...] = ("T-EVA-02",),
        axis: str = "queries",
        tested: float | None = 1000,
        clusters: Sequence[str] | None = None,
        **more: Any,
    ) -> Evidence:
        named = clusters or [None] * len(capabilities)
        units = enumerate(zip(capabilities, named, strict=True))
        rows = tuple(Row(unit=str(at), capability=value, cluster=cluster) for at, (value, cluster) in units)
        fields = {"status": "measured", "strength": "exact", **more}
        return Evidence(probe=probe, threats=threats, axis=axis, tested=tested if axis else None, rows=rows, **fields)

    return make


@pytest.fixture
def system() -> MakeSystem:
    def make(*actors: dict[str, Any], **more: Any) -> System:
        fields = {
            "system": "recommender",
            "model": {"path": "model.joblib"},
            "actors": list(actors or (CLINICIAN, BROKER, SUPPLIER)),
            "impact": {"integrity": {"per_event": {"low": 5_000, "high": 400_000, "unit": "EUR"}}},
            "appetite": {"annual_loss": 250_000, "at": 0.95},
            **more,
        }
        return System.model_validate(fields)

    return make
