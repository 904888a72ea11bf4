"""The report as PDF, from the same HTML, laid out by WeasyPrint's paged media; needs the extra `pdf`."""

from __future__ import annotations

from holdfast.assessment.comparison import Comparison
from holdfast.assessment.document import Assessment
from holdfast.core.errors import MissingExtra
from holdfast.reports.html import render_html


def render_pdf(assessment: Assessment, comparison: Comparison | None = None) -> bytes:
    """The report's pages. Nothing is fetched: only pictures inside the report can be drawn.

    Raises:
        MissingExtra: WeasyPrint, or a system library that it needs, is not installed.
    """
    try:
        import weasyprint
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:
        raise MissingExtra.of("weasyprint", "pdf", "Writing PDF") from error
    fetcher = URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    document = weasyprint.HTML(string=render_html(assessment, comparison), url_fetcher=fetcher)
    return bytes(document.write_pdf())
