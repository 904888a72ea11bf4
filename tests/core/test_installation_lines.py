"""What documents and messages say about installing: always from Holdfast's own source, never by its name from an index."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.core.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = re.compile(r"pip3? install [^\n`]*?(?<![\w./-])holdfast(?![\w./-])", re.IGNORECASE)


def test_nothing_says_to_install_by_name() -> None:
    assert BY_NAME.search("pip install 'holdfast[xgboost]'")
    assert BY_NAME.search("- run: pip install -U holdfast")
    assert not BY_NAME.search("(cd path/to/holdfast && pip install -c constraints.txt '.[xgboost]')")
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    files += [
        file for folder in ("src", "examples") for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".html", ".md")
    ]
    assert len(files) > 100
    assert [str(file.relative_to(ROOT)) for file in files if BY_NAME.search(file.read_text(encoding="utf-8"))] == []


def test_a_missing_extra_is_installed_from_the_source() -> None:
    hint = MissingExtra.of("xgboost", "xgboost", "An XGBoost model").hint
    assert hint == "Run in the folder of Holdfast's source: pip install '.[xgboost]'"
