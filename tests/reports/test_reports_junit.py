from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from holdfast.assessment.document import Assessment
from holdfast.reports.junit import render_junit
from holdfast.reports.outline import Outline

XS = "{http://www.w3.org/2001/XMLSchema}"


class Grammar:
    """The part of an XSD that JUnit's uses: each element's attributes, required attributes and children, by global name."""

    def __init__(self, path: Path) -> None:
        self.attributes: dict[str, set[str]] = {}
        self.required: dict[str, set[str]] = {}
        self.children: dict[str, set[str]] = {}
        for element in ET.parse(path).getroot().findall(f"{XS}element"):
            name = element.get("name", "")
            listed = element.findall(f"{XS}complexType/{XS}attribute")
            self.attributes[name] = {item.get("name", "") for item in listed}
            self.required[name] = {item.get("name", "") for item in listed if item.get("use") == "required"}
            self.children[name] = {item.get("ref", "") for item in element.iter(f"{XS}element")} - {""}

    def problems(self, element: ET.Element) -> list[str]:
        name = element.tag
        if name not in self.attributes:
            return [f"unknown <{name}>"]
        found = [f"{name}@{item}" for item in set(element.attrib) - self.attributes[name]]
        found += [f"{name} lacks {item}" for item in self.required[name] - set(element.attrib)]
        for child in element:
            if child.tag not in self.children[name]:
                found.append(f"<{child.tag}> in <{name}>")
            found += self.problems(child)
        return found


GRAMMAR = Grammar(Path(__file__).parent / "data" / "junit-10.xsd")


def suite_of(assessment: Assessment, breached: list[tuple[str, str]] | None = None) -> ET.Element:
    root = ET.fromstring(render_junit(assessment, breached or []).encode())
    assert GRAMMAR.problems(root) == []
    suite = root.find("testsuite")
    assert suite is not None
    for count, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        assert int(suite.get(count, "")) == len(suite.findall(tag))
    return suite


def outcomes(suite: ET.Element) -> dict[str, str]:
    found = {}
    for case in suite.findall("testcase"):
        tags = [child.tag for child in case if child.tag != "system-out"]
        assert len(tags) <= 1
        found[case.get("name", "").split()[0]] = tags[0] if tags else "passed"
    return found


def test_the_grammar_sees_what_is_wrong() -> None:
    assert GRAMMAR.problems(
        ET.fromstring('<testsuite name="a" tests="1" failures="0"><testcase><boom/></testcase></testsuite>')
    ) == [
        "testsuite lacks errors",
        "testcase lacks name",
        "<boom> in <testcase>",
        "unknown <boom>",
    ]


@pytest.mark.claim("loop-9")
def test_one_case_for_each_threat(assessment: Assessment) -> None:
    found = outcomes(suite_of(assessment))
    assert len(found) == len(assessment.threats)
    assert found["T-EVA-02"] == "passed"
    assert found["T-POI-01"] == "skipped"
    assert found["T-PRI-03"] == "skipped"
    assert found["T-EXT-01"] == "error"
    assert found["T-EVA-07"] == "error"
    assert "failure" not in found.values()


@pytest.mark.claim("loop-2")
def test_only_whole_measurements_pass(assessment: Assessment, nothing_measured: Assessment) -> None:
    passed = {name for name, outcome in outcomes(suite_of(assessment)).items() if outcome == "passed"}
    assert passed == {item.threat.id for item in Outline(assessment).having("measured")}
    assert "passed" not in outcomes(suite_of(nothing_measured)).values()


def test_breaches_are_failures(assessment: Assessment) -> None:
    suite = suite_of(assessment, [("T-EVA-02", "up to 44.7 %"), ("T-EVA-02", "and more"), ("", "the total is too high")])
    assert outcomes(suite)["T-EVA-02"] == "failure"
    messages = [failure.get("message") for failure in suite.findall("testcase/failure")]
    assert messages == ["up to 44.7 %; and more", "the total is too high"]


@pytest.mark.claim("loop-10")
def test_hostile_text_is_carried_as_text(hostile: Assessment) -> None:
    suite = suite_of(hostile, [("T-EVA-02", "]]> <b>\x00\x1b[0m")])
    text = ET.tostring(suite, encoding="unicode")
    assert "<b>" not in text
    assert "[U+0000][U+001B][0m" in text
