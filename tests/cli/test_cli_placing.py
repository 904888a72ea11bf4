"""A report never replaces what it is made from, nor anything that is no report of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cli.placing import require_report
from holdfast.core.errors import ConfigurationError


@pytest.mark.parametrize("kind", ["HTML", "SARIF", "JUnit", "Markdown", "PDF", "comparison", "threats"])
def test_files_of_other_kinds_are_left_alone(tmp_path: Path, kind: str) -> None:
    rows = tmp_path / "train.csv"
    rows.write_text("age,outcome\n40,1\n")
    with pytest.raises(ConfigurationError, match="left alone"):
        require_report(rows, kind)
    assert rows.read_text() == "age,outcome\n40,1\n"


def test_sources_are_never_replaced_and_earlier_reports_are(tmp_path: Path) -> None:
    page, empty = tmp_path / "report.html", tmp_path / "new.html"
    page.write_text("<!doctype html><title>report</title>")
    empty.touch()
    for path in (page, empty, tmp_path / "not there.html"):
        require_report(path, "HTML")
    with pytest.raises(ConfigurationError, match="never replaced"):
        require_report(page, "HTML", page)
    (tmp_path / "link.html").symlink_to(page)
    with pytest.raises(ConfigurationError, match="never replaced"):
        require_report(tmp_path / "link.html", "HTML", page)
