from __future__ import annotations

import pytest

from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.reports.outline import result


def share(name: str, value: float, group: str | None = None, **more: object) -> Metric:
    return Metric.model_validate({"name": name, "value": value, "low": value - 0.1, "high": value + 0.1, "group": group, **more})


CASES = {
    "P-PRI-ATTR": (
        (share("gain over imputer", -0.023, "health"), share("accuracy with the model", 0.829, "health")),
        "health \u22122.3 points [\u221212.3, +7.7]",
    ),
    "P-EXT-COPY": (
        (
            share("agreement of the commonest class", 0.62),
            share("agreement after 10 queries", 0.5),
            share("agreement after 30 queries", 0.8),
        ),
        "Best agreement after 30 queries: 80.0 % [70.0, 90.0]",
    ),
    "P-FAIR": (
        (
            share("error rate", 0.35),
            share("error rate", 0.64, "sex = f"),
            share("gap in error rate", 0.31, "sex = f", unit="difference of shares"),
            share("gap in error rate", 0.02, "sex = m", unit="difference of shares"),
        ),
        "sex = f: error rate 64.0 % [54.0, 74.0], +31.0 points [+21.0, +41.0] against all others",
    ),
    "P-DATA-AUDIT": (
        (
            Metric(name="findings of high severity", value=0, unit="findings"),
            Metric(name="findings of medium severity", value=4, unit="findings"),
            share("planted faults detected", 0.9, successes=43, trials=46),
        ),
        "severity 0 high, 4 medium; it missed 3 of 46 planted faults",
    ),
    "P-PRI-MIA": (
        (
            share("TPR at 10 % FPR", 0.3),
            share("TPR at 1 % FPR", 0.15),
            share("achieved FPR at nominal 1 %", 0.018),
            share("AUC", 0.6),
        ),
        "TPR at 1 % FPR: 15 % [5, 25] of the training records are recognised (95 % interval); of records never trained on, 1.8 %",
    ),
}


@pytest.mark.parametrize("probe", CASES)
def test_a_probe_speaks_in_its_own_terms(probe: str) -> None:
    metrics, expected = CASES[probe]
    rows = tuple(Row(unit=f"r{index}", capability=1.0) for index in range(10))
    told = result(Evidence(probe=probe, threats=("T",), status="measured", rows=rows, metrics=metrics)).replace("\u00a0", " ")
    assert expected in told
    assert "units" not in told


def test_others_and_those_without_their_metric_tell_the_share_of_units() -> None:
    rows = tuple(Row(unit=f"r{index}", capability=1.0) for index in range(10))
    for probe in ("P-EVA-SCORE", *CASES):
        assert result(Evidence(probe=probe, threats=("T",), status="measured", rows=rows)).startswith(
            "Succeeded on 10 of 10 units"
        )
