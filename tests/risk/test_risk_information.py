"""The value of a measurement against closed forms and against a decision played out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.risk.information import Question, next_probes
from holdfast.risk.quantification import quantify


def question(probability: np.ndarray[Any, Any], at_stake: float = 100.0, **more: Any) -> Question:
    return Question(threat="T", probe="P", actor="a", at_stake=at_stake, probability=probability, why="x", **more)


def test_worth_of_a_uniform_probability_is_the_closed_form() -> None:
    uniform = (np.arange(100_000) + 0.5) / 100_000
    for price in (10.0, 50.0, 80.0):
        expected = min(50.0, price) - (price - price**2 / 200)
        assert question(uniform).worth(price) == pytest.approx(expected, abs=1e-3)


def test_nothing_is_to_be_learnt_where_all_is_known_or_no_decision_turns() -> None:
    assert question(np.full(100, 0.3)).worth(20) == 0
    assert question(np.random.default_rng(0).random(1000)).worth(1e9) == pytest.approx(0, abs=1e-9)


def test_worth_equals_the_gain_of_a_decider_who_knows() -> None:
    draw = np.random.default_rng(1)
    p = draw.beta(0.5, 3, 200_000)
    blind = min(100 * p.mean(), 15.0)
    knowing = np.where(100 * p < 15.0, 100 * p, 15.0).mean()
    assert question(p).worth(15.0) == pytest.approx(blind - knowing)


def test_probes_are_ranked_and_actors_added() -> None:
    uniform = (np.arange(1000) + 0.5) / 1000
    known = Question(threat="K", probe="P", actor="a", at_stake=100, probability=np.full(1000, 0.1), why="x")
    twice = [
        Question(threat="U", probe="P", actor="small", at_stake=60, probability=uniform, why="x"),
        Question(threat="U", probe="P", actor="large", at_stake=100, probability=uniform, why="x"),
    ]
    found = next_probes([known, *twice], 40.0)
    assert [probe.threat for probe in found] == ["U"]
    assert found[0].actor == "large"
    assert found[0].value == pytest.approx(sum(one.worth(40.0) for one in twice))


def test_measuring_lowers_what_is_left_to_learn(system: Any, threat: Any, evidence: Any) -> None:
    def value(found: list[Any], appetite: float = 250_000) -> tuple[float, str]:
        register = quantify(system(appetite={"annual_loss": appetite}), [threat()], found, seed=1)
        return (register.next_probes[0].value, register.next_probes[0].why) if register.next_probes else (0.0, "")

    unmeasured, why = value([])
    assert "equally likely" in why
    few, why = value([evidence([50.0] * 2 + [None] * 2)])
    assert "only 4 units" in why
    many, _ = value([evidence([50.0] * 500 + [None] * 500)])
    assert unmeasured > few > many
    stronger, why = value([evidence([50.0] * 500 + [None] * 500, strength="weak")])
    assert stronger > many
    assert "stronger attack" in why
    _, why = value([evidence([50.0] * 50 + [None] * 50, tested=60)], appetite=50_000)
    assert "beyond the 60 that were tested" in why
