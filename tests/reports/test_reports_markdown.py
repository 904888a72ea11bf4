from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report_builders import HOSTILE, make_comparison

from holdfast.assessment.document import Assessment
from holdfast.reports.markdown import LARGEST, escape, render_markdown
from holdfast.reports.outline import Outline
from holdfast.reports.text import clean

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OWN_HTML = {"<!-- -->", "<sub>", "</sub>"}


def flat(text: str) -> list[Token]:
    return [token for block in PARSER.parse(text) for token in (block, *(block.children or ()))]


def shown(text: str) -> str:
    return "".join(token.content for token in flat(text) if token.type in ("text", "code_inline", "text_special"))


def check(text: str) -> list[Token]:
    tokens = flat(text)
    kinds = {token.type for token in tokens}
    assert not kinds & {"link_open", "image", "code_inline", "html_block", "fence", "code_block", "s_open", "blockquote_open"}
    assert {token.content for token in tokens if token.type == "html_inline"} <= OWN_HTML
    return tokens


@pytest.mark.claim("loop-9")
def test_the_comment_has_its_parts(assessment: Assessment) -> None:
    text = render_markdown(assessment, make_comparison())
    check(text)
    for part in ("## Measured risk of treatment-recommender", "### Not measured (41)", "### Next", "### Before and after"):
        assert part in text
    assert len(text) < LARGEST


@pytest.mark.claim("loop-2")
def test_every_open_threat_is_named_with_its_state(assessment: Assessment) -> None:
    lines = render_markdown(assessment).splitlines()
    for standing in Outline(assessment).open:
        (line,) = [line for line in lines if line.startswith("- ") and f"({standing.threat.id})" in line]
        assert standing.label in line
        assert "●" not in line


@pytest.mark.claim("loop-10")
def test_hostile_text_keeps_its_cell(hostile: Assessment) -> None:
    tokens = check(render_markdown(hostile))
    cells = 0
    for token in tokens:
        cells = 0 if token.type == "tr_open" else cells + (token.type in ("td_open", "th_open"))
        assert token.type != "tr_close" or cells == 6
    headings = [token for token in tokens if token.type == "heading_open"]
    assert [token.tag for token in headings] == ["h2", "h3", "h3", "h3", "h3"]


@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_text_is_shown_as_it_is(text: str) -> None:
    escaped = escape(text, 200)
    check(escaped)
    assert shown(escaped) == clean(text, 200).strip()


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    line = f"| {escape(text)} | end |"
    tokens = check(f"| a | b |\n| - | - |\n{line}\n")
    assert [token.type for token in tokens].count("td_open") == 2
    assert "".join(shown(f"x{escape(text)}x").split()) == "".join(f"x{clean(text).strip()}x".split())


def test_addresses_and_mentions_are_broken() -> None:
    text = escape("see https://attacker.test and WWW.attacker.test or @everyone, #12, a@b.test")
    assert "https://" not in text
    assert "WWW.a" not in text
    assert "@e" not in text
    assert "#1" not in text
    assert "@b" not in text
