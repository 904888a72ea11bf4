"""The catalogue that ships: complete, consistent, and refused when it is not."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.threats.catalogue import Catalogue, load_catalogue
from holdfast.threats.yamlfile import parse_yaml


@pytest.fixture
def raw() -> dict[str, Any]:
    folder = files("holdfast.threats") / "data"
    threats, incidents = (parse_yaml((folder / name).read_bytes(), name).unwrap() for name in ("threats.yaml", "incidents.yaml"))
    return {**copy.deepcopy(threats), "incidents": copy.deepcopy(incidents["incidents"])}


def test_counts() -> None:
    catalogue = load_catalogue()
    assert len(catalogue.threats) == 55
    assert len(catalogue.probes) == 48
    assert len(catalogue.controls) == 45
    assert len(catalogue.incidents) == 19
    assert load_catalogue() is catalogue


def test_every_reference_exists() -> None:
    """Checked here a second time, by hand, so that the model's own check is not its only witness."""
    catalogue = load_catalogue()
    threats = {threat.id for threat in catalogue.threats}
    assert len(threats) == 55
    for threat in catalogue.threats:
        assert set() < set(threat.probes) <= set(catalogue.probes), threat.id
        assert set() < set(threat.controls) <= set(catalogue.controls), threat.id
        assert set(threat.atlas) <= set(catalogue.names.atlas_techniques), threat.id
        assert set(threat.mitigations) <= set(catalogue.names.atlas_mitigations), threat.id
        assert set(threat.atlas_confirmed_mitigations) <= set(threat.mitigations), threat.id
        assert set(threat.nist) <= set(catalogue.names.nist), threat.id
        assert set(threat.owasp_ml) <= set(catalogue.names.owasp_ml), threat.id
        for fact, values in threat.when.items():
            assert set() < set(values) <= set(catalogue.facts[fact]), (threat.id, fact)
    for name, control in catalogue.controls.items():
        assert set(control.atlas_mitigations) <= set(catalogue.names.atlas_mitigations), name
    for incident in catalogue.incidents:
        assert set(incident.threats) <= threats, incident.id
        assert set(incident.controls) <= set(catalogue.controls), incident.id
    assert {probe for threat in catalogue.threats for probe in threat.probes} == set(catalogue.probes)
    assert {control for threat in catalogue.threats for control in threat.controls} == set(catalogue.controls)


def test_every_name_of_a_framework_is_used() -> None:
    catalogue = load_catalogue()
    used = {name for threat in catalogue.threats for name in (*threat.atlas, *threat.mitigations, *threat.nist, *threat.owasp_ml)}
    used |= {name for control in catalogue.controls.values() for name in control.atlas_mitigations}
    names = catalogue.names
    for stated in (names.atlas_techniques, names.atlas_mitigations, names.owasp_ml, names.nist):
        assert set(stated) - used == set() or set(stated) - used <= {"NISTAML.027"}


def test_fact_values_are_safe_in_yaml() -> None:
    for fact, values in load_catalogue().facts.items():
        text = f"a: [{', '.join(values)}]".encode()
        assert tuple(parse_yaml(text, fact).unwrap()["a"]) == values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["threats"][0]["probes"].append("P-NONE"), "T-EVA-01: there is no probe P-NONE"),
        (lambda c: c["threats"][0]["controls"].append("C-NONE"), "no control C-NONE"),
        (lambda c: c["threats"][0]["atlas"].append("AML.T9999"), "no name of technique AML.T9999"),
        (lambda c: c["threats"][0]["mitigations"].append("AML.M9999"), "no name of mitigation AML.M9999"),
        (lambda c: c["threats"][0]["atlas_confirmed_mitigations"].append("AML.M0002"), "no mitigation AML.M0002"),
        (lambda c: c["threats"][0]["nist"].append("NISTAML.99"), "no name of NIST attack NISTAML.99"),
        (lambda c: c["threats"][0]["owasp_ml"].append("ML99"), "no name of OWASP entry ML99"),
        (lambda c: c["threats"][0]["when"].update(reach=["moon"]), "reach has no value moon"),
        (lambda c: c["threats"][0]["when"].update(colour=["red"]), "no fact colour"),
        (lambda c: c["threats"][0].update(probes=[]), "probes"),
        (lambda c: c["threats"][0].update(id="T-EVA-02"), "T-EVA-02 is given twice"),
        (lambda c: c["threats"][0].update(surprise=1), "surprise"),
        (lambda c: c["controls"]["C-DP"]["atlas_mitigations"].append("AML.M9999"), "C-DP: there is no name of mitigation"),
        (lambda c: c["controls"].update({"C-NEW": c["controls"]["C-DP"]}), "no threat uses C-NEW"),
        (lambda c: c["incidents"][0]["threats"].append("T-XXX-99"), "I-01: there is no threat T-XXX-99"),
        (lambda c: c["incidents"][0]["controls"].append("C-NONE"), "I-01: there is no control C-NONE"),
    ],
)
def test_a_broken_catalogue_is_refused(raw: dict[str, Any], change: Any, says: str) -> None:
    Catalogue.model_validate(raw)
    change(raw)
    with pytest.raises(ValidationError, match=says):
        Catalogue.model_validate(raw)


def test_the_reference_shows_the_catalogue_as_it_is() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "reference" / "threats.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): row for row in page.splitlines() if row.startswith("| ") and len(cells := row.split("|")) > 3}
    catalogue = load_catalogue()
    for threat in catalogue.threats:
        row = rows[f"**{threat.id}** {threat.name}"]
        assert threat.what in row
        assert all(f"`{word}`" in row for fact, words in threat.when.items() for word in (fact, *words))
        assert all(name in row for name in (*threat.atlas, *threat.probes, *threat.controls))
    assert all(probe.measures in rows[name] for name, probe in catalogue.probes.items())
    assert all(control.name in rows[name] for name, control in catalogue.controls.items())
    assert sum(name.startswith("**T-") for name in rows) == 55
