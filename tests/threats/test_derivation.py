"""Deriving threats: the rules as written, and the promise that silence never removes a threat."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat, derive
from holdfast.threats.reader import read_system
from holdfast.threats.system import DATA_FACTS, System

HERE = Path(__file__).parent
FACTS = load_catalogue().facts
SECTIONS = {
    "model": ("modality", "artifact_format", "base_model"),
    "serving": ("deploy", "reach", "auth", "returns", "explanations", "weights_known_to"),
    "lifecycle": ("retrain", "registry", "federated", "genai"),
    "people": ("affects_people",),
}


def system(**sections: Any) -> System:
    return System.model_validate({"system": "s", "model": {"path": "m", **sections.pop("model", {})}, **sections})


def threat(described: System, name: str) -> Threat:
    return next(item for item in derive(described) if item.id == name)


@pytest.mark.claim("loop-3")
def test_the_hospital_file() -> None:
    """19 lines give 35 threats that apply; each of all 55 has a reason and valid identifiers."""
    catalogue = load_catalogue()
    derived = derive(read_system(HERE / "hospital.yaml"))
    counts = {state: sum(item.applicability == state for item in derived) for state in ("applies", "unknown", "excluded")}
    assert counts["applies"] >= 30
    assert counts == {"applies": 35, "unknown": 2, "excluded": 18}
    assert [item.id for item in derived] == [entry.id for entry in catalogue.threats]
    for item in derived:
        assert item.because.startswith(f"{item.applicability}: ")
        assert set() < set(item.probes) <= set(catalogue.probes)
        assert set() < set(item.controls) <= set(catalogue.controls)
        assert set(item.atlas) <= set(catalogue.names.atlas_techniques)
        assert set(item.nist) <= set(catalogue.names.nist)
        assert set(item.owasp_ml) <= set(catalogue.names.owasp_ml)
        assert bool(item.missing_facts) == (item.applicability == "unknown")
        assert item.ai_exchange


def test_nothing_stated_excludes_nothing() -> None:
    derived = derive(system())
    assert len(derived) == 55
    assert {item.applicability for item in derived} == {"applies", "unknown"}
    assert {item.id for item in derived if item.applicability == "applies"} == {
        entry.id for entry in load_catalogue().threats if not entry.when
    }


@pytest.mark.parametrize(
    ("sections", "name", "state", "because"),
    [
        ({}, "T-EVA-07", "applies", "applies: to every model"),
        (
            {"serving": {"reach": "internal", "returns": ["label", "scores"]}},
            "T-EVA-02",
            "applies",
            "applies: reach is internal; returns is scores",
        ),
        ({"lifecycle": {"genai": "none"}}, "T-GEN-01", "excluded", "excluded: genai is none"),
        (
            {},
            "T-EVA-01",
            "unknown",
            "unknown: weights_known_to is not stated; the threat applies if it is insider, device_holder or public",
        ),
        (
            {},
            "T-ACC-01",
            "unknown",
            "unknown: reach is not stated and auth is not stated; the threat applies if "
            "reach is internal, partner or internet and auth is none",
        ),
        (
            {"serving": {"reach": "internet"}},
            "T-EVA-02",
            "unknown",
            "unknown: returns is not stated; the threat applies if it is scores or logits",
        ),
        ({"serving": {"reach": "none"}}, "T-EVA-02", "excluded", "excluded: reach is none"),
        ({"serving": {"reach": "none", "returns": "label"}}, "T-EVA-02", "excluded", "excluded: reach is none; returns is label"),
        ({"serving": {"reach": ["internal", "partner"]}}, "T-DOS-02", "applies", "applies: reach is partner"),
        (
            {"data": [{"name": "a", "path": "a", "labels": "internal"}, {"name": "b", "path": "b"}]},
            "T-POI-08",
            "unknown",
            "unknown: labels is not stated for the data set b; the threat applies if it is outsourced or user_feedback",
        ),
        (
            {"data": [{"name": "a", "path": "a", "labels": "internal"}, {"name": "b", "path": "b", "labels": "outsourced"}]},
            "T-POI-08",
            "applies",
            "applies: labels is outsourced",
        ),
        (
            {"data": [{"name": "a", "path": "a", "labels": "internal"}, {"name": "b", "path": "b", "labels": "internal"}]},
            "T-POI-08",
            "excluded",
            "excluded: labels is internal",
        ),
    ],
)
def test_reasons(sections: dict[str, Any], name: str, state: str, because: str) -> None:
    found = threat(system(**sections), name)
    assert (found.applicability, found.because) == (state, because)


def test_a_threat_needs_no_more_than_its_rule() -> None:
    """Each rule on its own: stating exactly its facts makes the threat apply, and each fact off the rule excludes it."""
    places = {fact: section for section, facts in SECTIONS.items() for fact in facts}
    for entry in load_catalogue().threats:
        stated: dict[str, Any] = {"model": {}, "data": [{"name": "d", "path": "d"}]}
        for fact, accepted in entry.when.items():
            holder = stated["data"][0] if fact in DATA_FACTS else stated.setdefault(places[fact], {})
            holder[fact] = accepted[-1]
        assert threat(system(**copy.deepcopy(stated)), entry.id).applicability == "applies"
        for fact, accepted in entry.when.items():
            changed = copy.deepcopy(stated)
            holder = changed["data"][0] if fact in DATA_FACTS else changed[places[fact]]
            others = [word for word in FACTS[fact] if word not in accepted]
            if others:
                holder[fact] = others[0]
                assert threat(system(**changed), entry.id).applicability == "excluded", (entry.id, fact)
                del holder[fact]
                assert threat(system(**changed), entry.id).applicability == "unknown", (entry.id, fact)


def words(fact: str) -> st.SearchStrategy[Any]:
    one = st.sampled_from(FACTS[fact])
    return one | st.lists(one, min_size=1, max_size=3, unique=True)


def section(facts: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={fact: words(fact) for fact in facts})


systems = st.fixed_dictionaries(
    {
        **{name: section(facts) for name, facts in SECTIONS.items()},
        "data": st.lists(section(DATA_FACTS), max_size=3),
    }
)


@pytest.mark.claim("loop-3")
@settings(max_examples=150, deadline=None)
@given(systems)
def test_deleting_a_fact_never_removes_a_threat(stated: dict[str, Any]) -> None:
    """For every fact of a random system: without it, no threat is gone, and none that stood is excluded."""
    for index, item in enumerate(stated["data"]):
        item.update(name=f"d{index}", path="d")
    before = {item.id: item.applicability for item in derive(system(**copy.deepcopy(stated)))}
    holders = [(name, key) for name in SECTIONS for key in stated[name]]
    holders += [(index, key) for index, item in enumerate(stated["data"]) for key in item if key in DATA_FACTS]  # type: ignore[misc]
    for place, key in holders:
        fewer = copy.deepcopy(stated)
        del (fewer["data"][place] if isinstance(place, int) else fewer[place])[key]
        after = {item.id: item.applicability for item in derive(system(**fewer))}
        assert after.keys() == before.keys()
        for name, state in after.items():
            assert not (state == "excluded" and before[name] != "excluded"), (place, key, name)


@settings(max_examples=100, deadline=None)
@given(systems)
def test_an_exclusion_names_a_stated_fact_off_the_rule(stated: dict[str, Any]) -> None:
    for index, item in enumerate(stated["data"]):
        item.update(name=f"d{index}", path="d")
    described = system(**stated)
    facts, rules = described.facts(), {entry.id: entry.when for entry in load_catalogue().threats}
    for item in derive(described):
        rule = rules[item.id]
        off = [fact for fact in rule if fact in facts and not set(facts[fact]) & set(rule[fact])]
        if item.applicability == "excluded":
            assert any(f"{fact} is " in item.because for fact in off)
        elif item.applicability == "unknown":
            assert set() < set(item.missing_facts) <= set(rule)
            assert all(fact in item.because for fact in item.missing_facts)
        else:
            assert all(set(facts[fact]) & set(rule[fact]) for fact in rule)
