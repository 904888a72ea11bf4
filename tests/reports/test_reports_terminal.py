from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from holdfast.assessment.document import Assessment
from holdfast.reports.html import render_html
from holdfast.reports.markdown import render_markdown
from holdfast.reports.numbers import money_range
from holdfast.reports.outline import Outline, summary
from holdfast.reports.terminal import LARGEST_ASSUMED, print_summary


def printed(assessment: Assessment, width: int, *, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, highlight=False, color_system="standard" if terminal else None
    )
    print_summary(assessment, console)
    return file.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60])
def test_lines_fit(assessment: Assessment, hostile: Assessment, width: int) -> None:
    for document in (assessment, hostile):
        assert max(cell_len(line) for line in printed(document, width).splitlines()) <= width


@pytest.mark.parametrize("width", [100, 80, 60])
def test_every_width_shows_the_range(assessment: Assessment, width: int) -> None:
    text = printed(assessment, width)
    assert "5–95 %" in " ".join(text.split())
    if width >= 80:
        for risk in Outline(assessment).measured_risks:
            between = money_range(risk.annual.p5, risk.annual.p95, "EUR").replace("\u00a0", " ")
            assert between in text


@pytest.mark.parametrize("width", [100, 80])
def test_risk_ids_stand_whole_in_a_line(assessment: Assessment, width: int) -> None:
    outline = Outline(assessment)
    words = printed(assessment, width).split()
    for risk in (*outline.measured_risks, *outline.assumed_risks[:LARGEST_ASSUMED]):
        assert risk.id in words


def unsuccessful(assessment: Assessment) -> Assessment:
    """The worst measured risk rests on an attack that never succeeded."""
    worst = Outline(assessment).worst_measured
    assert worst is not None
    evidence = [
        item.model_copy(update={"rows": tuple(row.model_copy(update={"capability": None}) for row in item.rows[:5])})
        if item.probe == worst.probe
        else item
        for item in assessment.evidence
    ]
    return assessment.model_copy(update={"evidence": tuple(evidence)})


def test_what_was_observed_stands_beside_what_is_allowed_for(assessment: Assessment) -> None:
    worst = Outline(assessment).worst_measured
    assert worst is not None
    assert not Outline(assessment).largely_assumed(worst)
    found = unsuccessful(assessment)
    assert Outline(found).largely_assumed(worst)
    for width in (100, 60):
        shown = " ".join(printed(found, width).split())
        assert "largely assumed" in shown
    assert "observed 0 of 5" in printed(found, 100)
    page = render_html(found)
    assert "Observed 0 of 5; 34\u00a0% for this actor with the allowance for few trials. Largely assumed." in page
    assert page.count("largely assumed") >= 1
    assert "observed 0 of 5; largely assumed" in render_markdown(found)


def test_a_weak_actor_is_said_to_have_less_than_the_successes_took(assessment: Assessment) -> None:
    worst = Outline(assessment).worst_measured
    assert worst is not None
    register = assessment.register
    risks = tuple(risk.model_copy(update={"typical": 50.0}) if risk.id == worst.id else risk for risk in register.risks)
    evidence = tuple(
        item.model_copy(update={"rows": tuple(row.model_copy(update={"capability": 142.0}) for row in item.rows[:5])})
        if item.probe == worst.probe
        else item
        for item in assessment.evidence
    )
    changed = {"register": register.model_copy(update={"risks": risks}), "evidence": evidence}
    weak = assessment.model_copy(update=changed)
    said = "bserved 5 of 5 within 142 queries; this actor has typically 50"
    page = render_html(weak).replace("\u00a0", " ")
    assert f"O{said}; 34 % for this actor." in page
    assert f"o{said}" in page
    assert f"o{said}" in Outline(weak).observation(Outline(weak).worst_measured or worst).replace("\u00a0", " ")
    for width in (120, 80):
        words = printed(weak, width).split()
        assert {"observed", "142", "typically"} <= set(words)
        assert "allowance" not in words


def test_a_headline_that_is_mostly_assumed_says_so(assessment: Assessment) -> None:
    outline, register = Outline(assessment), assessment.register
    risks = {risk.id: risk.annual.mean for risk in register.risks}
    doubled = {risk.id: 3 * sum(risks.values()) for risk in (*outline.assumed_risks[:1], *outline.measured_risks[:1])}

    def with_mean(chosen: str) -> Assessment:
        changed = tuple(
            risk.model_copy(update={"annual": risk.annual.model_copy(update={"mean": doubled[risk.id]})})
            if risk.id == chosen
            else risk
            for risk in register.risks
        )
        return assessment.model_copy(update={"register": register.model_copy(update={"risks": changed})})

    assumed, measured = (with_mean(risk) for risk in doubled)
    said = "of the mean is assumed for want of measurement."
    page = render_html(assumed)
    assert said in page[: page.index('class="cards"')]
    assert said in " ".join(printed(assumed, 80).split()[:80])
    assert said not in render_html(measured)
    assert said not in " ".join(printed(measured, 80).split())


def test_a_pipe_gets_plain_text_and_a_terminal_colours(assessment: Assessment) -> None:
    assert "\x1b" not in printed(assessment, 100)
    assert "\x1b[" in printed(assessment, 100, terminal=True)


@pytest.mark.claim("loop-2")
def test_every_open_threat_is_named(assessment: Assessment) -> None:
    words = " ".join(printed(assessment, 200).split())
    for standing in Outline(assessment).open:
        assert standing.threat.id in words
    assert "Not measured (41)" in words


def test_measured_risks_stand_before_assumed_ones_with_ids_and_sums(assessment: Assessment) -> None:
    text = printed(assessment, 200)
    outline = Outline(assessment)
    measured, assumed = text[: text.index("Not measured (")].split("Largest risks that nothing measured")
    for risk in outline.measured_risks:
        assert risk.id in measured
        assert risk.id not in assumed
    for risk in outline.assumed_risks[:LARGEST_ASSUMED]:
        assert risk.id in assumed
    assert "assumed for want of measurement" in assumed
    assert not any(outline.may_apply(risk) for risk in outline.assumed_risks[: len(outline.assumed_risks) // 2])


@pytest.mark.parametrize(
    ("auc", "accuracy", "warned"),
    [(0.51, 0.752, True), (0.3, 0.4, True), (None, 0.75, True), (0.87, 0.70, False), (None, 0.8, False)],
)
def test_a_model_that_does_no_better_than_none_is_warned_about(
    assessment: Assessment, auc: float | None, accuracy: float, warned: bool
) -> None:
    assert assessment.utility is not None
    changed = {"auc": auc, "accuracy": accuracy, "accuracy_low": accuracy - 0.01, "accuracy_high": accuracy + 0.01}
    broken = assessment.model_copy(update={"utility": assessment.utility.model_copy(update=changed)})
    for text in (printed(broken, 100), render_html(broken), render_markdown(broken)):
        shown = " ".join(text.split())
        assert "always answering the commonest class: 75" in shown
        assert ("Check scaling, class order and columns" in shown) == warned


def test_a_model_that_is_never_wrong_is_doubted_first(assessment: Assessment) -> None:
    assert assessment.utility is not None
    changed = {"accuracy": 1.0, "accuracy_low": 0.99, "accuracy_high": 1.0}
    flawless = assessment.model_copy(update={"utility": assessment.utility.model_copy(update=changed)})
    for text in (printed(flawless, 100), render_html(flawless), render_markdown(flawless)):
        assert "Check that train and holdout are not swapped" in " ".join(text.split())
    assert Outline(flawless).steps[0].verb == "Repair"
    assert "roles of the data" in Outline(flawless).steps[0].what
    assert "roles of the data" not in Outline(assessment).steps[0].what


def test_labels_worse_than_the_commonest_class_are_said_to_be(assessment: Assessment) -> None:
    assert assessment.utility is not None
    changed = {"accuracy": 0.70, "accuracy_low": 0.69, "accuracy_high": 0.71}
    ranking = assessment.model_copy(update={"utility": assessment.utility.model_copy(update=changed)})
    said = "labels are worse than always answering the commonest class; its ranking is better than chance (AUC 0.87)"
    for text in (printed(ranking, 100), render_html(ranking)):
        assert said in " ".join(text.split())
    assert said not in " ".join(printed(assessment, 100).split())


@pytest.mark.claim("loop-2")
def test_green_is_never_printed(assessment: Assessment, nothing_measured: Assessment) -> None:
    for document in (assessment, nothing_measured):
        assert not re.search(r"\x1b\[[\d;]*\b(32|92|42|102)m", printed(document, 100, terminal=True))
    assert printed(nothing_measured, 100).startswith("Nothing was measured: the risks of this system are unknown, not low.")


@pytest.mark.claim("loop-10")
def test_hostile_text_sends_nothing_to_the_terminal(hostile: Assessment) -> None:
    plain = printed(hostile, 100)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    assert "[bold red]rich" in " ".join(printed(hostile, 400).split())
    assert "\x1b]8" not in printed(hostile, 100, terminal=True)


def test_the_summary_names_the_same_things(assessment: Assessment) -> None:
    found = summary(assessment)
    assert found["worst"]["threat"] == "T-ACC-01"
    assert found["worst"]["state"] == "unmeasured"
    assert found["worst_measured"]["threat"] == "T-EVA-02"
    assert len(found["not_measured"]) == 41
    assert [step["verb"] for step in found["next"]][:2] == ["Repair", "Repair"]
    assert found["next"][-1]["verb"] == "Install"
