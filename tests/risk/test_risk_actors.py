"""Who can carry out which threat."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError
from holdfast.risk.actors import POWERS, WITHOUT_ATTACKER, able_actors, actors_of, slug
from holdfast.risk.defaults import ATTACKER, ORDINARY
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat
from holdfast.threats.system import System


def system(*actors: dict[str, Any], **more: Any) -> System:
    return System.model_validate({"system": "s", "model": {"path": "m"}, "actors": list(actors), **more})


def actor(name: str, access: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "access": access, **more}


ALL = [actor(access, access) for access in POWERS]


@pytest.mark.parametrize(
    ("probe", "able"),
    [
        ("P-EVA-WB", {"gradients", "model file", "host", "updates"}),
        ("P-EVA-SCORE", {"scores", "gradients", "model file", "host", "updates"}),
        ("P-EVA-LABEL", {"labels", "scores", "gradients", "model file", "host", "updates"}),
        ("P-POI-FLIP", {"training rows"}),
        ("P-POI-FEEDBACK", {"feedback"}),
        ("P-FED-POISON", {"updates"}),
        ("P-ACC-MITM", {"network"}),
        ("P-SEC-DATA", {"host"}),
        ("P-SUP-SCAN", {"model file", "host"}),
        ("P-ROB-SHIFT", {"none"}),
        ("P-OPS-DRIFT", {"none"}),
        ("P-OF-A-PLUG-IN", set(POWERS) - {"none"}),
    ],
)
def test_access_decides_who_is_able(probe: str, able: set[str], threat: Any) -> None:
    assert set(able_actors(system(*ALL), threat(probes=(probe,)))) == able


def test_a_threat_nobody_declared_can_carry_out_has_an_unnamed_attacker(threat: Any) -> None:
    unnamed = actors_of(system(actor("a", "labels")), threat(probes=("P-POI-FLIP",)))
    assert [found.name for found in unnamed] == [ATTACKER]
    assert unnamed[0].attempts_source == "default"
    assert able_actors(system(), threat()) == ()


def test_what_needs_no_attacker_is_ordinary_operation_unless_declared(threat: Any) -> None:
    assert [found.name for found in actors_of(system(*ALL[:3]), threat(probes=("P-ROB-SHIFT",)))] == [ORDINARY]
    named = system(actor("wear and tear", "none", attempts_per_year={"low": 1, "high": 2}))
    found = actors_of(named, threat(probes=("P-ROB-SHIFT",)))
    assert [(one.name, one.attempts_source) for one in found] == [("wear and tear", "declared")]
    both = actors_of(named, threat(probes=("P-OPS-PATCH", "P-SUP-DEP")))
    assert [one.name for one in both] == [ATTACKER, "wear and tear"]


def test_every_catalogue_threat_has_somebody_and_every_access_word_is_known() -> None:
    words = {entry.access for entry in load_catalogue().probes.values()}
    assert words <= WITHOUT_ATTACKER | frozenset().union(*POWERS.values())
    for entry in load_catalogue().threats:
        made = Threat(
            id=entry.id, name=entry.name, stage=entry.stage, goal=entry.goal, what=entry.what,
            applicability="applies", because="x", probes=entry.probes,
        )  # fmt: skip
        assert actors_of(system(), made)


def test_defaults_are_marked_by_the_system_file(threat: Any) -> None:
    attempts = {"low": 1, "high": 2}
    for mark in ("actors", "actors.0", "actors.clerk", "actors.0.attempts_per_year", "actors.clerk.attempts_per_year"):
        marked = system(actor("clerk", "scores", attempts_per_year=attempts), defaults=[mark])
        assert actors_of(marked, threat())[0].attempts_source == "default"
    plain = system(actor("clerk", "scores", attempts_per_year=attempts), defaults=["impact.integrity"])
    assert actors_of(plain, threat())[0].attempts_source == "declared"


def test_two_actors_of_one_name_stay_two(threat: Any) -> None:
    twins = actors_of(system(actor("clerk", "scores"), actor("Clerk", "scores")), threat())
    assert len({twin.key for twin in twins}) == 2


@given(st.text(max_size=80))
def test_slugs_are_plain_and_stable(name: str) -> None:
    made = slug(name)
    assert made
    assert len(made) <= 50
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert made == slug(name)


def test_slugs_of_different_names_differ() -> None:
    assert slug("curious clinician") == "curious-clinician"
    assert len({slug("müller"), slug("mueller"), slug("muller"), slug("医生"), slug("护士"), slug("a" * 60), slug("a" * 61)}) == 7


@pytest.mark.parametrize("attempts", [{"low": 1e-9, "high": 1}, {"low": 1e8, "high": 1e10}])
def test_ranges_beyond_belief_are_refused(attempts: dict[str, float], threat: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"attempts|factor"):
        actors_of(system(actor("a", "scores", attempts_per_year=attempts)), threat())
