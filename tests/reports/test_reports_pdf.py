from __future__ import annotations

import sys
import urllib.request

import pytest
from report_builders import make_comparison

from holdfast.assessment.document import Assessment
from holdfast.core.errors import MissingExtra
from holdfast.reports.pdf import render_pdf


@pytest.mark.slow
@pytest.mark.claim("loop-9")
def test_the_same_report_on_pages(assessment: Assessment) -> None:
    pytest.importorskip("weasyprint", reason="the extra pdf is not installed")
    content = render_pdf(assessment, make_comparison())
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(content) > 20_000


@pytest.mark.slow
@pytest.mark.claim("loop-10")
def test_nothing_is_fetched(assessment: Assessment, monkeypatch: pytest.MonkeyPatch) -> None:
    weasyprint = pytest.importorskip("weasyprint", reason="the extra pdf is not installed")
    opened = []

    def open_nothing(self: object, request: object, *args: object, **options: object) -> object:
        opened.append(getattr(request, "full_url", request))
        raise OSError("closed")

    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.FileHandler,
        urllib.request.FTPHandler,
    ):
        for name in ("http_open", "https_open", "file_open", "ftp_open"):
            if hasattr(handler, name):
                monkeypatch.setattr(handler, name, open_nothing)
    page = (
        "<img src='https://attacker.test/x.png'><img src='file:///etc/hostname'><link rel=stylesheet href='http://a.test/x.css'>"
    )
    monkeypatch.setattr("holdfast.reports.pdf.render_html", lambda *_: page)
    render_pdf(assessment)
    assert opened == []
    weasyprint.HTML(string=page).write_pdf()
    assert opened, "the trap sees what WeasyPrint fetches when it may"


def test_a_missing_package_is_one_clear_error(assessment: Assessment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtra, match="weasyprint") as caught:
        render_pdf(assessment)
    assert "[pdf]" in str(caught.value)
