"""The report in Debian's chromium: both themes, wide and on a phone. What is measured is printed into the DOM by a wrapper
page that holds the report in frames of the two widths."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_builders import make_comparison

from holdfast.assessment.document import Assessment
from holdfast.reports.html import render_html

CHROMIUM = shutil.which("chromium")
THEMES = {"dark": 0, "light": 1}
WIDTHS = (390, 1280)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.claim("loop-9"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]

WRAPPER = """<!doctype html><meta charset="utf-8"><body>%(frames)s<pre id="measured"></pre><script>
function rgb(text) { const m = text.match(/[\\d.]+/g).map(Number); return m.length === 4 && m[3] === 0 ? null : m.slice(0, 3); }
function light(c) { const f = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; }
function contrast(a, b) { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); }
function behind(element, view) {
  for (let e = element; e; e = e.parentElement) { const c = rgb(view.getComputedStyle(e).backgroundColor); if (c) return c; }
  return [255, 255, 255]; }
function measure(frame) {
  const doc = frame.contentDocument, view = frame.contentWindow, root = doc.documentElement;
  const wide = [...doc.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > root.clientWidth + 1
    && view.getComputedStyle(e).position !== "absolute" && !e.closest("thead") && !e.closest("svg"));
  const outside = [...doc.querySelectorAll("td .badge")].filter(e =>
    e.getBoundingClientRect().right > e.closest("td").getBoundingClientRect().right + 1);
  const faint = [], green = [];
  for (const e of doc.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const style = view.getComputedStyle(e), back = behind(e, view);
    const ink = rgb(e.closest("svg") ? (style.fill === "none" ? "rgba(0,0,0,0)" : style.fill) : style.color);
    if (own && ink && e.tagName !== "title" && e.tagName !== "desc" && contrast(ink, back) < 4.5)
      faint.push(`${e.tagName}.${e.getAttribute("class")} ${ink} on ${back}`);
    for (const c of [ink, back, rgb(style.borderTopColor)])
      if (c && c[1] > c[0] + 24 && c[1] > c[2] + 24) green.push(`${e.tagName}.${e.getAttribute("class")} ${c}`);
  }
  return {width: root.clientWidth, scroll: root.scrollWidth, wide: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120)),
    outside: outside.slice(0, 5).map(e => e.textContent),
    faint: [...new Set(faint)], green: [...new Set(green)], scripts: doc.scripts.length, pwned: !!view.pwned || !!window.pwned,
    ground: behind(doc.body, view),
    columns: view.getComputedStyle(doc.querySelector(".cards")).gridTemplateColumns.split(" ").length};
}
addEventListener("load", () => {
  document.getElementById("measured").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
});
</script>"""


def measured(page: str, theme: str, folder: Path) -> list[dict[str, Any]]:
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in WIDTHS)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER % {"frames": frames}, encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={THEMES[theme]}", "--window-size=1400,1000",
        "--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr[-2000:]  # noqa: PT018
    return list(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("theme", sorted(THEMES))
def test_the_page_fits_and_reads_in_both_themes(assessment: Assessment, tmp_path: Path, theme: str) -> None:
    phone, desk = measured(render_html(assessment, make_comparison()), theme, tmp_path)
    for view in (phone, desk):
        assert view["scroll"] <= view["width"], view["wide"]
        assert view["wide"] == []
        assert view["outside"] == []
        assert view["faint"] == []
        assert view["green"] == []
        assert view["scripts"] == 0
        assert (sum(view["ground"]) < 150) == (theme == "dark")
    assert (phone["width"], phone["columns"], desk["columns"]) == (390, 1, 4)


def test_hostile_text_runs_nothing_and_breaks_nothing(hostile: Assessment, tmp_path: Path) -> None:
    page = render_html(hostile).replace("alert(1)", "parent.pwned=1")
    for view in measured(page, "light", tmp_path):
        assert view["scripts"] == 0
        assert not view["pwned"]
        assert view["scroll"] <= view["width"], view["wide"]


def test_the_stylesheet_needs_its_hash(assessment: Assessment, tmp_path: Path) -> None:
    page = render_html(assessment).replace("sha256-", "sha256-x")
    phone, _ = measured(page.replace("<bdi>treatment", "<script>parent.pwned=1</script><bdi>treatment"), "light", tmp_path)
    assert phone["columns"] != 1 or phone["ground"] == [255, 255, 255]
    assert not phone["pwned"], "the policy holds even where a script got in"
