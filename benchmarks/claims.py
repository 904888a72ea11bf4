"""Each promise with the evidence behind it: `python -m benchmarks.claims [--write]`.

Reads `claims.yaml`, the committed results and the tests' claim marks (found by reading the test files, not by running
them). Exits with 1 when a claim lacks a part of its evidence or a benchmark row falls short. `--write` makes
`docs/claims.md`.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main(argv: list[str] | None = None) -> int:
    """Print every claim; 1 if one falls short."""
    argv = sys.argv[1:] if argv is None else argv
    claims: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "benchmarks" / "claims.yaml").read_text())
    rows, tests = benchmark_rows(), marked_tests()
    unknown = sorted((rows.keys() | tests.keys()) - claims.keys())
    for name in unknown:
        print(f"UNKNOWN {name}: named by {', '.join(tests.get(name, ['a benchmark']))} and not in claims.yaml")
    short = {name: problems(name, claim, rows, tests) for name, claim in claims.items()}
    for name, claim in claims.items():
        print(f"{'SHORT' if short[name] else 'ok   '} {name}: {claim['says']}")
        for row in rows.get(name, []):
            print(f"        {'ok   ' if row['ok'] else 'SHORT'} {row['benchmark']}: {shown(row)}")
        for test in tests.get(name, []):
            print(f"        test  {test}")
        for problem in short[name]:
            print(f"        MISSING {problem}")
    if "--write" in argv:
        (ROOT / "docs" / "claims.md").write_text(page(claims, rows, tests, short))
    return int(bool(unknown) or any(short.values()))


def benchmark_rows() -> dict[str, list[dict[str, Any]]]:
    """Rows of the committed results, by claim."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        for row in json.loads(path.read_text())["rows"]:
            found.setdefault(row["claim"], []).append({**row, "benchmark": path.stem})
    return found


def marked_tests() -> dict[str, list[str]]:
    """Tests that carry a claim mark, as `path::name`, by claim."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        shared = [claim for node in tree.body if isinstance(node, ast.Assign) for claim in claims_in(node.value)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                for claim in {*shared, *(claim for decorator in node.decorator_list for claim in claims_in(decorator))}:
                    found.setdefault(claim, []).append(f"{path.relative_to(ROOT)}::{node.name}")
    return found


def claims_in(node: ast.AST) -> list[str]:
    """The claims named by `pytest.mark.claim(...)` calls inside a node."""
    return [
        str(argument.value)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "claim"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]


def shown(row: dict[str, Any]) -> str:
    """A row in one line."""
    return f"{row['check']}: {row['value']:.4g} ({row['bound']})"


def yes_no(row: dict[str, Any]) -> str:
    """Whether a row holds, for the page."""
    return "yes" if row["ok"] else "**no**"


def problems(name: str, claim: dict[str, Any], rows: dict[str, list[dict[str, Any]]], tests: dict[str, list[str]]) -> list[str]:
    """What the claim lacks."""
    found = []
    if "benchmark" in claim["parts"] and name not in rows:
        found.append("a benchmark row")
    if "test" in claim["parts"] and name not in tests:
        found.append("a test")
    return found + [f"{row['benchmark']}: {row['check']} falls short" for row in rows.get(name, []) if not row["ok"]]


def page(
    claims: dict[str, dict[str, Any]],
    rows: dict[str, list[dict[str, Any]]],
    tests: dict[str, list[str]],
    short: dict[str, list[str]],
) -> str:
    """The claims as a documentation page."""
    lines = ["# Claims", "", "What Holdfast promises about itself, with the evidence. Made by `make claims`; do not edit.", ""]
    for name, claim in claims.items():
        lines += [f"## {name}", "", claim["says"], ""]
        if short[name]:
            lines += ["**Falls short:** " + "; ".join(short[name]) + ".", ""]
        if rows.get(name):
            lines += ["| benchmark | check | value | bound | holds |", "| --- | --- | --- | --- | --- |"]
            lines += [
                f"| {row['benchmark']} | {row['check']} | {row['value']:.4g} | {row['bound']} | {yes_no(row)} |"
                for row in rows[name]
            ]
            lines.append("")
        lines += [f"- `{test}`" for test in tests.get(name, [])] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
