"""Checking the catalogue against another ATLAS release, in both forms that ATLAS has had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.core.errors import ConfigurationError
from holdfast.threats.atlas import AtlasReport, LostLink, check_atlas
from holdfast.threats.catalogue import load_catalogue


def release() -> dict[str, Any]:
    """What the catalogue relies on: names, case studies and mitigating links."""
    catalogue = load_catalogue()
    techniques = dict(catalogue.names.atlas_techniques)
    for incident in catalogue.incidents:
        for name in incident.techniques:
            techniques.setdefault(name, f"Technique {name}")
    links = [
        (mitigation, technique)
        for threat in catalogue.threats
        for mitigation in threat.atlas_confirmed_mitigations
        for technique in threat.atlas
    ]
    return {
        "techniques": techniques,
        "mitigations": dict(catalogue.names.atlas_mitigations),
        "case-studies": {incident.atlas_case: incident.name for incident in catalogue.incidents if incident.atlas_case},
        "links": links,
    }


def legacy(content: dict[str, Any], version: str = "5.7.0") -> str:
    mitigations = [
        {
            "id": name,
            "name": title,
            "techniques": [{"id": target, "use": "x"} for source, target in content["links"] if source == name],
        }
        for name, title in content["mitigations"].items()
    ]
    techniques = [{"id": name, "name": title, "tactics": ["AML.TA0002"]} for name, title in content["techniques"].items()]
    cases = [{"id": name, "name": title} for name, title in content["case-studies"].items()]
    matrix = {"id": "ATLAS", "name": "ATLAS Matrix", "tactics": [], "techniques": techniques, "mitigations": mitigations}
    return yaml.safe_dump({"id": "ATLAS", "name": "A", "version": version, "matrices": [matrix], "case-studies": cases})


def dated(content: dict[str, Any], version: str = "2026.09") -> str:
    relationships: dict[str, Any] = {}
    for source, target in content["links"]:
        link = {"source": source, "target": target, "relationship-type": "mitigates"}
        relationships.setdefault(source, {"mitigates": []})["mitigates"].append(link)
    objects = {
        kind: {name: {"id": name, "name": title} for name, title in content[kind].items()}
        for kind in ("techniques", "mitigations", "case-studies")
    }
    return yaml.safe_dump(
        {"format-version": "6.0.0", "collection": {"version": version}, **objects, "relationships": relationships}
    )


def check(tmp_path: Path, text: str) -> AtlasReport:
    path = tmp_path / "ATLAS.yaml"
    path.write_text(text, encoding="utf-8")
    return check_atlas(path)


FORMS = pytest.mark.parametrize("written", [legacy, dated])


@FORMS
def test_an_equal_release_is_unchanged(tmp_path: Path, written: Any) -> None:
    content = release()
    report = check(tmp_path, written(content))
    assert report.unchanged
    assert report.version == ("5.7.0" if written is legacy else "2026.09")
    assert report.checked_against == "5.6.0"
    assert report.techniques == len(content["techniques"])
    assert report.mitigations == 29
    assert report.case_studies == 15
    assert report.checked >= report.techniques


@FORMS
def test_vanished_and_renamed_identifiers_and_lost_links(tmp_path: Path, written: Any) -> None:
    content = release()
    del content["techniques"]["AML.T0058"]
    content["techniques"]["AML.T0020"] = "Training Data Poisoning"
    content["techniques"]["AML.T9999"] = "Something new"
    del content["mitigations"]["AML.M0029"]
    content["mitigations"]["AML.M0024"] = "Telemetry"
    del content["case-studies"]["AML.CS0009"]
    content["links"] = [link for link in content["links"] if link != ("AML.M0007", "AML.T0020")]
    report = check(tmp_path, written(content))
    assert not report.unchanged
    vanished = {change.id: change for change in report.vanished}
    assert set(vanished) == {"AML.T0058", "AML.M0029", "AML.CS0009"}
    assert vanished["AML.T0058"].name == "Publish Poisoned Models"
    assert set(vanished["AML.T0058"].used_by) >= {"T-BAC-01", "T-SUP-01", "T-SUP-04"}
    assert "C-OVERSIGHT" in vanished["AML.M0029"].used_by
    assert vanished["AML.CS0009"].used_by == ("I-02",)
    renamed = {change.id: (change.name, change.new_name) for change in report.renamed}
    assert renamed == {
        "AML.T0020": ("Poison Training Data", "Training Data Poisoning"),
        "AML.M0024": ("AI Telemetry Logging", "Telemetry"),
    }
    assert LostLink(threat="T-POI-04", mitigation="AML.M0007") not in report.lost_links, "another technique keeps the link"
    content["links"] = [link for link in content["links"] if link != ("AML.M0007", "AML.T0031")]
    assert LostLink(threat="T-POI-04", mitigation="AML.M0007") in check(tmp_path, written(content)).lost_links


@FORMS
def test_a_link_to_the_parent_technique_counts(tmp_path: Path, written: Any) -> None:
    content = release()
    content["links"] = [
        (source, target.rpartition(".")[0] if target.count(".") == 2 else target) for source, target in content["links"]
    ]
    assert check(tmp_path, written(content)).lost_links == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v6/ATLAS-2026.09.yaml", "only names another, 'v6/ATLAS-2026.09.yaml'"),
        ("a: 1", "not a release of MITRE ATLAS"),
        ("version: 1\nmatrices: 5", "not a release of MITRE ATLAS"),
        ("version: 1\nmatrices: [5, {techniques: {a: b}}]", "not a release of MITRE ATLAS"),
        ("version: 1\nmatrices: [{techniques: [{id: AML.T9999, name: x}]}]", "holds none of the techniques"),
        ("version: 1\nmatrices: [{techniques: [{id: AML.T0020}]}]", "no ATLAS id or no name"),
        ("version: 1\nmatrices: [{techniques: [{id: '<b>', name: x}]}]", "no ATLAS id or no name"),
        ("collection: {version: '1'}\ntechniques: {AML.T0020: 5}", "no ATLAS id or no name"),
        ("collection: {version: '1'}\ntechniques: {AML.T0020: {name: !!python/name:os.system ''}}", "tag"),
    ],
)
def test_what_is_no_release_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        check(tmp_path, text)
    assert "ATLAS.yaml" in str(caught.value.where)


def test_a_truncated_download_is_not_called_vanished(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        check(tmp_path, "")
    with pytest.raises(ConfigurationError, match="does not exist"):
        check_atlas(tmp_path / "nothing.yaml")
