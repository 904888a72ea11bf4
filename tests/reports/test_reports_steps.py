"""Next steps are ones that can be taken with what is installed; the others stand last and say so."""

from __future__ import annotations

from typing import Any

import pytest
from report_builders import make_assessment

from holdfast.assessment.document import Assessment
from holdfast.reports.html import render_html
from holdfast.reports.outline import Outline
from holdfast.risk.register import NextProbe

NEXT = (
    NextProbe(threat="T-ACC-05", probe="P-ACC-HOST", actor="unnamed attacker", value=9000.0, why="P(success) is unmeasured"),
    NextProbe(threat="T-PRI-01", probe="P-PRI-MIA", actor="curious clinician", value=8000.0, why="a stronger attack may add"),
    NextProbe(threat="T-POI-01", probe="P-POI-FLIP", actor="supplier", value=700.0, why="P(success) is unmeasured"),
)


def asked(budget: str = "quick", *, recipe: bool = False, **changes: Any) -> Assessment:
    made = make_assessment(budget=budget)
    evidence = [
        item.model_copy(
            update={
                "status": "unmeasured",
                "reason": "how the model is trained was not given\n  Add model.recipe: clone, or FILE.py:FUNCTION.",
                "rows": (),
                "metrics": (),
            }
        )
        if item.probe == "P-POI-FLIP"
        else item
        for item in made.evidence
        if item.status == "measured" or item.probe == "P-POI-FLIP"
    ]
    digests = dict(made.digests) | ({"recipe": "sha256:1"} if recipe else {})
    register = made.register.model_copy(update={"next_probes": NEXT})
    return made.model_copy(update={"evidence": tuple(evidence), "register": register, "digests": digests, **changes})


def test_an_input_that_an_installed_probe_lacks_comes_first() -> None:
    first = Outline(asked()).steps[0]
    assert first.what == "Add model.recipe: clone, or FILE.py:FUNCTION"
    assert "Label flipping" in first.why
    assert "shadow models" in first.why
    assert "700" in first.why


def test_what_no_installed_probe_measures_stands_last_and_is_not_what_to_do_first() -> None:
    outline = Outline(asked())
    last = outline.steps[-1]
    assert (last.verb, last.threat) == ("Install", "T-ACC-05")
    assert "no probe for it is installed" in last.what
    assert not any("P-ACC-HOST" in step.what for step in outline.steps)
    only = outline.assessment.model_copy(
        update={
            "evidence": (),
            "measurable": {"T-PRI-01": ("P-PRI-MIA",)},
            "register": outline.assessment.register.model_copy(update={"risks": (), "next_probes": NEXT[:1]}),
        }
    )
    assert [step.verb for step in Outline(only).steps] == ["Install"]
    assert Outline(only).first_step is None
    assert "No measurement that can be made here" in render_html(only)


@pytest.mark.parametrize(
    ("budget", "recipe", "lever"),
    [
        ("quick", True, "holdfast assess --budget standard"),
        ("standard", True, "holdfast assess --budget thorough"),
        ("10m", True, "holdfast assess --budget thorough"),
        ("quick", False, "name how the model is trained (model.recipe), then holdfast assess --budget standard"),
        ("thorough", False, "name how the model is trained (model.recipe)"),
        ("thorough", True, ""),
    ],
)
def test_a_repetition_names_what_would_make_it_tell_more(budget: str, recipe: bool, lever: str) -> None:
    closer = [step for step in Outline(asked(budget, recipe=recipe)).steps if step.what.startswith("Measure more closely")]
    assert [step.what.partition("curious clinician: ")[2] for step in closer] == ([lever] if lever else [])
    assert all("A stronger attack may add." in step.why for step in closer)


def test_a_probe_that_was_not_chosen_is_one_to_run() -> None:
    made = asked()
    without = tuple(item for item in made.evidence if item.probe != "P-PRI-MIA")
    risks = tuple(risk for risk in made.register.risks if risk.threat != "T-PRI-01")
    left = made.model_copy(update={"evidence": without, "register": made.register.model_copy(update={"risks": risks})})
    assert any("run P-PRI-MIA too, by holdfast assess without --only" in step.what for step in Outline(left).steps)


def test_threats_that_lack_holdout_rows_share_one_step() -> None:
    made = make_assessment()
    needs = {"P-EVA-SCORE": 100, "P-EVA-LABEL": 200, "P-PRI-MIA": 100}
    evidence = tuple(
        item.model_copy(
            update={
                "status": "inconclusive",
                "reason": f"89 holdout rows; this measurement needs at least {needs[item.probe]}",
                "rows": (),
                "metrics": (),
            }
        )
        if item.probe in needs
        else item
        for item in made.evidence
    )
    steps = Outline(made.model_copy(update={"evidence": evidence})).steps
    about_rows = [step for step in steps if "holdout rows" in step.what + step.why]
    assert [step.what for step in about_rows] == ["Add holdout rows: 89 now, at least 200 needed"]
    for name in ("Score-guided evasion by queries", "Label-only evasion by queries", "Membership inference"):
        assert name in about_rows[0].why
    assert not any("Make Membership inference measurable" in step.what for step in steps)
