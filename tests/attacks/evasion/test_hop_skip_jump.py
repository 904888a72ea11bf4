"""HopSkipJump against closed forms, its caps, and its independence of the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from counted import Counted, digits_network, linear
from sklearn.ensemble import RandomForestClassifier

from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access
from holdfast.core.tabular import Relation, Table, Tabular


def distances(model: Any, x: Any, y: np.ndarray, ball: Ball, batch: int, budget: int) -> np.ndarray:
    """The distances found in batches of that size."""
    parts = [np.arange(at, min(at + batch, len(x))) for at in range(0, len(x), batch)]
    found = [HopSkipJump().run(model, x[part], y[part], ball, seed=3, budget=budget, units=part) for part in parts]
    return np.concatenate([outcome.distance for outcome in found])


@pytest.mark.parametrize(("norm", "slack"), [("l2", 1.06), ("linf", 1.25)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_it_comes_close_to_the_closed_form_on_a_linear_model(norm: str, slack: float, library: str) -> None:
    model, x, y = linear(classes=3, features=8, samples=24, access=Access.LABELS)
    inputs = torch.as_tensor(x) if library == "torch" else x
    outcome = HopSkipJump().run(model, inputs, y, Ball(norm=norm, radius=math.inf, low=-9, high=9), seed=1, budget=2000)
    closed = model.distances(x, norm)
    ratio = outcome.distance / closed
    assert outcome.success.all()
    assert (ratio >= 1 - 1e-9).all()
    assert np.median(ratio) < slack
    assert ratio.max() < 2 * slack


@pytest.mark.claim("loop-7")
@pytest.mark.parametrize("budget", [1, 2, 3, 10, 77, 300])
def test_no_sample_is_asked_over_its_cap_by_an_outside_count(budget: int) -> None:
    model, x, y = linear(classes=4, features=6, samples=9)
    outcome = HopSkipJump().run(model, x, y, Ball(norm="l2", radius=math.inf, low=-1, high=1), seed=0, budget=budget)
    judged = sum(len(batch) for batch in model.seen) - outcome.cost.forward
    assert outcome.cost.queries.max() <= budget
    assert (outcome.cost.queries == budget)[outcome.success & (outcome.distance > 0)].all()
    assert outcome.cost.queries.sum() == outcome.cost.forward
    assert judged <= 3 * len(x)


def test_its_own_cap_holds_where_the_run_has_none() -> None:
    model, x, y = linear(classes=4, features=6, samples=9)
    outcome = HopSkipJump(queries=150).run(model, x, y, Ball(norm="l2", radius=math.inf, low=-1, high=1), seed=0)
    assert outcome.cost.queries.tolist() == [150] * 9


def test_every_input_it_asks_about_is_valid() -> None:
    model, x, y = linear(classes=4, features=6, samples=9)
    HopSkipJump().run(model, x, y, Ball(norm="l2", radius=math.inf, low=-1, high=1), seed=0, budget=300)
    assert np.abs(model.rows).max() <= 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_result_does_not_depend_on_the_batch(norm: str) -> None:
    model, x, y = linear(classes=4, features=6, samples=12)
    ball = Ball(norm=norm, radius=math.inf, low=-1, high=1)
    together = HopSkipJump().run(model, x, y, ball, seed=3, budget=200)
    for size in (1, 5):
        parts = [
            HopSkipJump().run(
                model, x[at : at + size], y[at : at + size], ball, seed=3, budget=200, units=range(at, min(at + size, 12))
            )
            for at in range(0, 12, size)
        ]
        assert np.allclose(np.concatenate([part.distance for part in parts]), together.distance, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.claim("loop-7")
def test_on_a_network_results_agree_within_2_percent_for_batches_of_1_7_and_64() -> None:
    network, x, y = digits_network(64)
    model = Counted(network)
    ball = Ball(norm="l2", radius=math.inf)
    medians = []
    for size in (1, 7, 64):
        found = [
            HopSkipJump().run(
                model, x[at : at + size], y[at : at + size], ball, seed=0, budget=400, units=range(at, min(at + size, 64))
            )
            for at in range(0, 64, size)
        ]
        medians.append(np.nanmedian(np.concatenate([outcome.distance for outcome in found])))
    assert max(medians) <= 1.02 * min(medians)


def test_cutting_large_requests_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = linear(classes=4, features=6, samples=5)
    ball = Ball(norm="l2", radius=math.inf, low=-1, high=1)
    whole = HopSkipJump().run(model, x, y, ball, seed=3, budget=200)
    largest = max(len(batch) for batch in model.seen)
    model.seen.clear()
    monkeypatch.setattr("holdfast.attacks.evasion.hop_skip_jump.NUMBERS_AT_ONCE", 60)
    cut = HopSkipJump().run(model, x, y, ball, seed=3, budget=200)
    assert max(len(batch) for batch in model.seen) < largest
    assert np.allclose(cut.distance, whole.distance, rtol=1e-9)


def test_all_samples_share_model_calls() -> None:
    model, x, y = linear(classes=4, features=6, samples=2)
    ball = Ball(norm="l2", radius=math.inf, low=-1, high=1)
    few = HopSkipJump().run(model, x, y, ball, seed=0, budget=300).cost.calls
    model, x, y = linear(classes=4, features=6, samples=64)
    many = HopSkipJump().run(model, x, y, ball, seed=0, budget=300).cost.calls
    assert many < 3 * few


@pytest.mark.slow
@pytest.mark.claim("evasion-2")
def test_a_thousand_queries_for_each_of_64_samples_take_at_most_130_calls() -> None:
    network, x, y = digits_network(64)
    outcome = HopSkipJump().run(Counted(network), x, y, Ball(norm="l2", radius=math.inf), seed=0, budget=1000)
    assert outcome.cost.calls <= 130
    assert outcome.cost.queries.max() <= 1000


def test_owned_rows_of_another_class_make_a_closer_start() -> None:
    model, x, y = linear(classes=3, features=30, samples=60, seed=4)
    ball = Ball(norm="l2", radius=math.inf, low=-1, high=1)
    random = HopSkipJump().run(model, x[:20], y[:20], ball, seed=0, budget=30)
    owned = HopSkipJump(starts=x[20:], start_labels=y[20:]).run(model, x[:20], y[:20], ball, seed=0, budget=30)
    assert owned.success.all()
    assert np.median(owned.distance) < np.nanmedian(random.distance)


def test_a_model_that_never_changes_its_mind_is_not_evaded() -> None:
    model = Counted(lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * 0 - 1], dim=1))
    outcome = HopSkipJump().run(
        model, np.full((3, 4), 0.5), np.zeros(3, dtype=int), Ball(norm="l2", radius=math.inf), seed=0, budget=100
    )
    assert not outcome.success.any()
    assert outcome.cost.queries.tolist() == [64] * 3


def test_success_inside_a_radius_is_counted_from_the_first_query_that_reached_it() -> None:
    model, x, y = linear(classes=3, features=8, samples=30)
    closed = model.distances(x, "l2")
    radius = float(np.median(closed)) * 1.2
    outcome = HopSkipJump().run(model, x, y, Ball(norm="l2", radius=radius, low=-9, high=9), seed=0, budget=1000)
    assert not outcome.success[closed > radius].any()
    assert outcome.success[closed < 0.8 * radius].all()
    assert (outcome.queries[outcome.success] <= 1000).all()
    assert np.median(outcome.queries[outcome.success]) < 600


def test_tables_keep_their_constraints_in_every_query() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": generator.integers(18, 90, 300),
            "visits": generator.integers(0, 30, 300),
            "inpatient": generator.integers(0, 5, 300),
            "bmi": generator.normal(27, 4, 300),
            "sex": generator.choice(["f", "m"], 300),
            "plan": generator.choice(["a", "b", "c"], 300),
        }
    )
    frame["inpatient"] = np.minimum(frame["inpatient"], frame["visits"])
    y = ((frame["visits"] > 12) ^ (frame["plan"] == "c")).to_numpy(int)
    coded = frame.assign(sex=frame["sex"].eq("f"), plan=frame["plan"].map(dict.fromkeys("a", 0) | {"b": 1, "c": 2}))
    forest = RandomForestClassifier(30, random_state=0).fit(coded[:200], y[:200])
    seen: list[pd.DataFrame] = []

    class Pipeline:
        access = Access.LABELS

        def labels(self, x: pd.DataFrame) -> np.ndarray:
            seen.append(x)
            return forest.predict(x.assign(sex=x["sex"].eq("f"), plan=x["plan"].map({"a": 0, "b": 1, "c": 2})))

    table = Table.describe(frame, immutable=("age", "sex"))
    domain = Tabular(table=table, norm="l2", relations=(Relation(weights={"inpatient": 1.0, "visits": -1.0}),))
    held = frame[200:].reset_index(drop=True)
    attack = HopSkipJump(starts=table.encode(frame[:200]), start_labels=y[:200])
    outcome = attack.run(Pipeline(), table.encode(held), y[200:], domain, seed=0, budget=200, decode=table.decode)
    assert outcome.success.sum() > 0.9 * outcome.correct.sum()
    asked = pd.concat(seen)
    assert set(asked["plan"]) <= {"a", "b", "c"}
    assert asked["visits"].between(0, 29).all()
    assert (asked["inpatient"] <= asked["visits"]).all()
    assert asked["bmi"].between(frame["bmi"].min(), frame["bmi"].max()).all()
    after = table.decode(outcome.adversarial)
    pd.testing.assert_frame_equal(after[["age", "sex"]], held[["age", "sex"]])
    assert (after["plan"] != held["plan"]).any()


@pytest.mark.parametrize("settings", [{"queries": 0}, {"probes": 0}, {"reach": -1.0}, {"tries": 0}, {"starts": np.zeros((2, 2))}])
def test_settings_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(ConfigurationError):
        HopSkipJump(**settings)
