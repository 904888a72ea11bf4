"""The pytest assertions fail when a bound is exceeded, when nothing was measured, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.assessment.gate import Policy
from holdfast.core.errors import ConfigurationError
from holdfast.testing import assert_gate, assert_no_leak, assert_robust


@pytest.mark.slow
def test_robustness_both_ways(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    assert_robust(system, attack="labels", max_success=1.0)
    with pytest.raises(AssertionError, match="95 % upper bound"):
        assert_robust(system, attack="labels", max_success=0.01)


@pytest.mark.slow
def test_an_overfitted_forest_leaks(clinic: Path) -> None:
    assert_no_leak(clinic / "holdfast.yaml", max_success=1.0)
    with pytest.raises(AssertionError, match="P-PRI-MIA"):
        assert_no_leak(clinic / "holdfast.yaml", max_success=0.02)


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_what_cannot_be_measured_fails(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    text = (
        system.read_text()
        .replace("role: train,", "")
        .replace("name: train, path: train.csv,", "name: rest, path: train.csv, role: holdout,")
    )
    lines = [line for line in text.splitlines() if "holdout.csv" not in line]
    system.write_text("\n".join(lines) + "\n")
    with pytest.raises(AssertionError, match="unmeasured"):
        assert_no_leak(system, max_success=1.0)


def test_an_unknown_attack_is_named(clinic: Path) -> None:
    with pytest.raises(ConfigurationError, match="labels, scores, white-box"):
        assert_robust(clinic / "holdfast.yaml", attack="label", max_success=0.5)  # type: ignore[arg-type]


@pytest.mark.slow
def test_gate_both_ways(clinic: Path) -> None:
    from holdfast.assessment.run import assess

    document = assess(clinic / "holdfast.yaml", budget="quick", only=["data-audit"], workers=1)
    assert_gate(document, Policy(require=["T-POI-07"]))
    with pytest.raises(AssertionError, match="inconclusive"):
        assert_gate(document, Policy())
