"""The worked example of docs/how-risk-is-computed.md, recomputed: by hand formulas and by the register."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import beta, norm

from holdfast.risk.defaults import ATTACKER, ATTEMPTS, LOSS_PER_EVENT, ORDINARY, UNIT, gap_shape
from holdfast.risk.losses import EXACT_EVENTS
from holdfast.risk.quantification import quantify
from holdfast.threats.system import System

PAGE = (Path(__file__).parents[2] / "docs" / "how-risk-is-computed.md").read_text(encoding="utf-8")
FELL: list[float | None] = [10.0] * 6 + [30.0] * 6 + [100.0] * 6 + [1000.0] * 12 + [None] * 170


def row(first: str) -> list[str]:
    """The cells after the first of the table row that starts with `first`."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def numbers(cell: str) -> list[float]:
    return [float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*\.?\d*", cell)]


def result(first: str) -> float:
    return numbers(row(first)[-1])[0]


def test_the_hand_computation() -> None:
    def lognormal_mean(low: float, high: float) -> float:
        return float(np.sqrt(low * high) * np.exp((np.log(high / low) / (2 * norm.ppf(0.95))) ** 2 / 2))

    attempts, loss = lognormal_mean(1, 8), lognormal_mean(5_000, 400_000)
    edges = norm.cdf(np.log(np.array([10, 30, 100, 1000]) / 20) / (np.log(5) / norm.ppf(0.95)))
    shares = np.diff([0, *edges])
    measured = float(shares @ [0.5, 6.5, 12.5, 18.5]) / 201
    stronger = measured + (1 - measured) / (1 + gap_shape("moderate"))
    assert result("attempts a year, mean") == pytest.approx(attempts, abs=5e-4)
    assert result("loss per event, mean") == pytest.approx(loss, abs=0.5)
    places = ("actor's queries below 10", "from 10 to 30", "from 30 to 100", "from 100 to 1,000")
    assert [result(place) for place in places] == pytest.approx(shares, abs=5e-5)
    assert result("measured P(success), mean") == pytest.approx(measured, abs=5e-5)
    assert result("with a stronger attack") == pytest.approx(stronger, abs=5e-5)
    assert result("mean annual loss") == pytest.approx(attempts * stronger * loss, abs=0.5)


def test_the_simulated_numbers(threat: Any, evidence: Any) -> None:
    system = System.model_validate(yaml.safe_load(PAGE.split("```yaml")[1].split("```")[0]))
    found = evidence(FELL, strength="moderate")
    columns = [quantify(system, [threat()], [found], seed=0), quantify(system, [threat()], [], seed=0)]
    for index, register in enumerate(columns):
        risk = register.risks[0]
        shown = {
            "P(success), mean": ([risk.probability[0]], 5e-4),
            "P(success), 5 to 95 %": (list(risk.probability[1:]), 5e-4),
            "95 % point of annual loss": ([risk.annual.p95], 0.5),
            "P(any loss in a year)": ([risk.annual.exceedance[0][1]], 6e-4),
            "P(loss > 250,000)": ([register.exceeds_appetite], 6e-4),
        }
        for first, (values, slack) in shown.items():
            assert numbers(row(first)[index]) == pytest.approx(values, abs=slack), first
        simulated = next(line for line in PAGE.splitlines() if line.startswith("| mean annual loss | 69,900"))
        assert numbers(simulated.split("|")[2 + index])[0] == pytest.approx(risk.annual.mean, abs=0.5)
    assert f"up to {columns[1].next_probes[0].value:,.0f} EUR" in PAGE


def test_the_constants_of_the_page() -> None:
    for strength in ("strong", "moderate", "weak"):
        b = gap_shape(strength)
        shape, mean, high = (numbers(cell)[0] for cell in row(strength))
        assert shape == pytest.approx(b, rel=0.005)
        assert mean / 100 == pytest.approx(1 / (1 + b), abs=6e-4)
        assert high / 100 == pytest.approx(beta.ppf(0.95, 1, b), abs=6e-4)
    for first, span in (
        ("attempts a year", ATTEMPTS[ATTACKER]),
        ("occasions a year", ATTEMPTS[ORDINARY]),
        ("loss per event", LOSS_PER_EVENT),
    ):
        lines = [line for line in PAGE.split("## Defaults")[1].splitlines() if line.startswith(f"| {first} |")]
        assert numbers(lines[0].split("|")[2]) == [span.low, span.high]
    assert row("unit")[0] == UNIT
    assert f"up to {EXACT_EVENTS} losses" in PAGE
