from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_builders import HOSTILE, digit_picture, make_assessment, make_comparison, make_evidence

from holdfast.assessment.document import Assessment
from holdfast.core.evidence import Example, Metric
from holdfast.reports import html
from holdfast.reports.html import LARGEST, render_html
from holdfast.reports.outline import Outline
from holdfast.reports.text import clean

TAGS = frozenset(
    {
        "html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "nav", "section", "article", "div",
        "span", "p", "h1", "h2", "h3", "h4", "ul", "ol", "li", "a", "strong", "code", "bdi", "table", "caption", "thead", "tbody",
        "tr", "th", "td", "figure", "figcaption", "img", "svg", "desc", "line", "rect", "path", "circle", "text",
    }
)  # fmt: skip


FULL = make_assessment()


class Page(HTMLParser):
    """The page's elements, its text, and what it must not hold."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.style = ""
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in TAGS:
            self.problems.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcset", "action", "formaction", "srcdoc", "xlink:href"):
                self.problems.append(f"{tag} {name}")
            if name == "href" and not (value or "").startswith(("#", "data:,")):
                self.problems.append(f"{tag} href={value}")
            if name == "src" and not (value or "").startswith("data:image/png;base64,"):
                self.problems.append(f"{tag} src={value}")
        if tag not in ("meta", "link", "img"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._inside or self._inside.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "style":
            self.style += data
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))

    def with_class(self, name: str) -> list[str]:
        return [tag for tag, attributes in self.elements if name in (attributes.get("class") or "").split()]


@pytest.mark.claim("loop-9")
def test_the_page_is_one_file_without_scripts_or_addresses(assessment: Assessment) -> None:
    page = render_html(assessment, make_comparison())
    parsed = Page(page)
    assert parsed.problems == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|javascript:", page, re.IGNORECASE)
    assert len(page.encode()) < 300_000


@pytest.mark.claim("loop-9")
def test_the_policy_allows_this_stylesheet_and_nothing_else(assessment: Assessment) -> None:
    parsed = Page(render_html(assessment))
    policy = next(attributes["content"] for tag, attributes in parsed.elements if attributes.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


@pytest.mark.claim("loop-10")
def test_hostile_text_is_shown_and_not_obeyed(hostile: Assessment) -> None:
    page = render_html(hostile)
    parsed = Page(page)
    assert parsed.problems == []
    assert "[U+202E]" in page
    assert "[U+001B]" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    for text in HOSTILE:
        assert re.sub(r"\s+", " ", clean(text, 4000)[:30]).strip() in parsed.words
    assert "{{ 7 * 7 }}" in parsed.words


def test_the_check_for_hostile_text_can_fail(hostile: Assessment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = html._environment()
    monkeypatch.setattr(environment, "autoescape", False)
    environment.cache.clear()
    try:
        assert any("script" in problem or "img" in problem for problem in Page(render_html(hostile)).problems)
    finally:
        environment.cache.clear()


@pytest.mark.claim("loop-2")
def test_every_threat_without_a_measurement_is_named_and_never_looks_measured(assessment: Assessment) -> None:
    page = render_html(assessment)
    section = page[page.index('<section id="open"') : page.index('<section id="measured"')]
    outline = Outline(assessment)
    assert len(outline.open) == 41
    for standing in (*outline.open, *outline.having("not_applicable")):
        row = next(row for row in section.split("<tr>") if f"<bdi>{standing.threat.id}</bdi>" in row)
        assert standing.threat.name in Page(row).words
        assert f'class="badge {standing.state}"' in row
    assert 'class="badge measured"' not in section


@pytest.mark.claim("loop-2")
def test_nothing_measured_is_said_first_and_nothing_looks_measured(nothing_measured: Assessment) -> None:
    parsed = Page(render_html(nothing_measured))
    assert "Nothing was measured: the risks of this system are unknown, not low." in parsed.words
    assert ("h1", {"class": "unknown"}) in parsed.elements
    assert [tag for tag, attributes in parsed.elements if attributes.get("class") == "badge measured"] == []


@pytest.mark.claim("loop-2")
def test_the_palette_has_no_green() -> None:
    for colour in re.findall(r"#([0-9a-f]{6})\b", html._style()):
        red, green, blue = (int(colour[index : index + 2], 16) for index in (0, 2, 4))
        assert not (green > red + 16 and green > blue + 16), colour


@given(st.sets(st.integers(0, len(make_evidence()) - 1)))
def test_less_evidence_never_turns_a_threat_into_a_measured_one(left_out: set[int]) -> None:
    full = FULL
    kept = tuple(item for index, item in enumerate(full.evidence) if index not in left_out)
    reduced = Outline(full.model_copy(update={"evidence": kept}))
    measured = {item.threat.id for item in Outline(full).standings if item.measured}
    assert {item.threat.id for item in reduced.standings if item.measured} <= measured
    for before, after in zip(Outline(full).standings, reduced.standings, strict=True):
        lost = [item for item in before.measured if item not in kept]
        if lost and len(lost) == len(before.measured):
            assert after.state != "measured"


def test_a_newcomer_finds_the_four_answers_at_the_top(assessment: Assessment) -> None:
    page = render_html(assessment)
    top = Page(page[page.index("<header>") : page.index("</header>")]).words
    for part in ("Worst measured risk", "How sure", "Do first", "Not measured", "Open or misconfigured service", "41 threats"):
        assert part in top
    assert "Worst that nothing measured" in top
    assert "always answering the commonest class" in top


def test_measured_and_assumed_risks_stand_apart_with_their_ids(assessment: Assessment) -> None:
    page = render_html(assessment)
    section = page[page.index('<section id="risks"') : page.index('<section id="next"')]
    measured, assumed = section.split("Largest risks that nothing measured")
    assert "Largest measured risks" in measured
    assert 'class="badge unmeasured"' not in measured
    assert 'class="badge measured"' not in assumed
    for risk in Outline(assessment).measured_risks[: html.TOP]:
        assert f"<bdi>{risk.id}</bdi>" in measured
    assert "assumed for want of measurement" in Page(section).words


def test_captions_of_stacked_tables_keep_their_width_on_a_phone() -> None:
    phone = html._style().split("@media screen and (max-width: 40rem)")[1].split("@media print")[0]
    assert "table.stack caption { display: block; }" in phone


def test_many_numbers_get_the_full_width_and_none_is_cut() -> None:
    gap = Metric(name="gap", value=0.31, low=0.2, high=0.4, unit="difference of shares", group="sex = female")
    evidence = [item.model_copy(update={"metrics": (gap,) * 30}) if item.probe == "P-FAIR" else item for item in make_evidence()]
    page = render_html(make_assessment(evidence=tuple(evidence)))
    assert Page(page).with_class("dense") == ["table"]
    assert "+31.0\u00a0points [+20.0,\u00a0+40.0]" in page


def test_values_and_pictures_stay_out_unless_the_user_opted_in() -> None:
    shown = render_html(make_assessment(personal_values=True))
    hidden = render_html(make_assessment(personal_values=False))
    assert "data:image/png;base64," in shown
    assert ">9800<" in shown
    assert "data:image/png;base64," not in hidden
    assert ">9800<" not in hidden
    assert "withheld" in hidden


@pytest.mark.parametrize(
    "picture", ["not base64!", base64.b64encode(b"<svg onload=alert(1)>").decode(), "A" * 70_000, '"><script>']
)
def test_what_is_no_small_png_is_not_embedded(picture: str) -> None:
    evidence = list(make_evidence())
    example = Example(unit="r1", label_before="a", label_after="b", image_before=picture, image_after=picture)
    evidence[0] = evidence[0].model_copy(update={"examples": (example,)})
    parsed = Page(render_html(make_assessment(evidence=tuple(evidence))))
    assert parsed.problems == []
    assert not any(tag == "img" for tag, _ in parsed.elements)


@pytest.mark.claim("loop-9")
def test_a_huge_assessment_stays_below_the_cap_and_names_every_open_threat() -> None:
    evidence = [
        item.model_copy(
            update={
                "findings": tuple(f"finding {index} " + "x" * 390 for index in range(5000)),
                "metrics": item.metrics * 500,
                "method": "m" * 100_000,
                "reason": item.reason + "r" * 100_000,
            }
        )
        for item in make_evidence()
    ]
    plain = make_assessment()
    picture = digit_picture(2)
    padded = base64.b64encode(base64.b64decode(picture) + b"\0" * 44_000).decode()
    pictured = Example(unit="u" * 400, label_before="a" * 400, label_after="b" * 400, image_before=padded, image_after=padded)
    evidence = [item.model_copy(update={"examples": (pictured,) * 200}) for item in evidence]
    copies = tuple(
        risk.model_copy(update={"id": f"{risk.id}{copy}", "actor": f"{copy} " + "z" * 500})
        for copy in range(400)
        for risk in plain.register.risks
    )
    huge = make_assessment(
        evidence=tuple(evidence),
        register=plain.register.model_copy(update={"risks": copies}),
        notes=tuple("n" * 1000 for _ in range(5000)),
        decisions=plain.decisions * 1000,
    )
    page = render_html(huge)
    assert len(page.encode()) <= LARGEST
    parsed = Page(page)
    assert parsed.problems == []
    for standing in Outline(huge).open:
        assert standing.threat.name in parsed.words


def test_before_and_after_shows_verdicts_and_differences(assessment: Assessment) -> None:
    words = Page(render_html(assessment, make_comparison())).words.replace("\u00a0", " ")
    assert "no evidence of help" in words
    assert "not comparable" in words
    assert "\u221214.5 points [\u221216.0, \u221213.0]" in words
    assert "Before and after" not in Page(render_html(assessment)).words


def test_sources_are_tagged_and_decisions_show_their_state(assessment: Assessment) -> None:
    parsed = Page(render_html(assessment))
    assert "attempts: default" in parsed.words
    assert "✕ lapsed the date it ran until has passed" in parsed.words
    assert "owner’s" in parsed.words or "owner's own estimates" in parsed.words
    assert parsed.words.count("in force") == 1
