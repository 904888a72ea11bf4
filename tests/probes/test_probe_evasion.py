"""The evasion probes on small targets: what they find, what they refuse, and what they never give away."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from holdfast.attacks.evasion.apgd import APGD
from holdfast.core.errors import Inconclusive, NotApplicable, Unmeasured
from holdfast.core.oracle import Access
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.tabular import Relation
from holdfast.core.target import Dataset, DomainSpec, Target
from holdfast.hardening.answers import harden_answers
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel
from holdfast.probes import flips
from holdfast.probes.evasion import LabelEvasion, ScoreEvasion, WhiteBoxEvasion
from holdfast.probes.footing import ASKED_TWICE
from holdfast.probes.surface import chosen_rows, picture, surface
from made_targets import as_model, forest, made_target, people

BUDGET = Budget(level="quick", rows=60, queries=120, repeats=1, shadows=1)
PROBES = [WhiteBoxEvasion, ScoreEvasion, LabelEvasion]


def run(probe: Any, target: Target, budget: Budget = BUDGET, seed: int = 3):
    return probe().run(target, budget, seed, Silent())


@pytest.fixture(scope="module")
def table() -> Target:
    return made_target(forest(), people(1000, 0, noise=0.1), train=500)


class Planes(torch.nn.Module):
    """A linear network, whose closed-form distances are known."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.as_tensor(np.random.default_rng(0).normal(size=(3, 16))))
            self.layer.bias.copy_(-0.5 * self.layer.weight.sum(dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


@pytest.fixture(scope="module")
def pictures() -> Target:
    x = np.random.default_rng(1).uniform(0, 1, size=(300, 1, 4, 4)).astype(np.float32)
    network = Planes().eval()
    with torch.no_grad():
        y = network(torch.as_tensor(x)).argmax(dim=1).numpy()
    model = TorchModel(network, Context(sample=x[:3], classes=("a", "b", "c"), fixed=True))
    data = Dataset(name="holdout", x=x, y=y.astype(np.int64), classes=("a", "b", "c"), ids=np.arange(300).astype(str))
    return Target(name="pictures", model=model, modality="image", holdout=data)


@pytest.mark.parametrize("probe", PROBES)
def test_probes_keep_the_contract(probe) -> None:
    made = probe()
    assert isinstance(made, Probe)
    assert made.id.startswith("P-EVA-")
    assert all(threat.startswith("T-EVA-") for threat in made.threats)


@pytest.mark.slow
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", ["table", "pictures"])
def test_evidence_is_measured_complete_and_repeatable(probe, name: str, request: pytest.FixtureRequest) -> None:
    target = request.getfixturevalue(name)
    evidence = run(probe, target)
    assert evidence.status == "measured"
    assert evidence.tested > 0
    assert 20 <= len(evidence.rows) <= BUDGET.rows
    successes = sum(row.success for row in evidence.rows)
    rate = evidence.metric("success rate")
    assert (rate.successes, rate.trials) == (successes, len(evidence.rows))
    assert successes > 0
    assert evidence.metric("clean accuracy").successes == len(evidence.rows)
    assert 0 < len(evidence.examples) <= 6
    assert all(example.label_before != example.label_after for example in evidence.examples)
    assert evidence.spent.queries > 0
    assert evidence.model_dump(exclude={"spent"}) == run(probe, target).model_dump(exclude={"spent"})


@pytest.mark.slow
def test_by_gradients_rows_fall_at_the_radius_that_the_closed_form_gives(pictures: Target) -> None:
    evidence = run(WhiteBoxEvasion, pictures)
    weights = pictures.model.module.layer.weight.detach().numpy()
    x = {unit: row.reshape(-1) for unit, row in zip(pictures.holdout.ids, pictures.holdout.x, strict=True)}
    assert evidence.strength == "strong"
    for row in evidence.rows:
        scores = weights @ (x[row.unit] - 0.5)
        label = scores.argmax()
        slopes = np.abs(weights[label] - np.delete(weights, label, axis=0)).sum(axis=1)
        without_box = ((scores[label] - np.delete(scores, label)) / slopes).min()
        assert row.capability is None or row.capability >= without_box * 0.999
    assert sum(row.success for row in evidence.rows) > 10
    assert len({row.capability for row in evidence.rows if row.success}) > 1


@pytest.mark.slow
def test_larger_budgets_never_succeed_less(pictures: Target) -> None:
    rates = []
    for radius in (0.02, 0.05, 0.2, 1.0):
        evidence = run(WhiteBoxEvasion, replace(pictures, domain=DomainSpec(radius=radius)))
        rates.append(evidence.metric("success rate").value)
    assert rates == sorted(rates)
    assert rates[-1] == 1.0


def test_queries_never_exceed_the_budget(table: Target) -> None:
    for probe in (ScoreEvasion, LabelEvasion):
        evidence = run(probe, table)
        assert evidence.axis == "queries"
        assert all(1 <= row.capability <= BUDGET.queries for row in evidence.rows if row.success)
        assert evidence.spent.queries <= BUDGET.queries * len(evidence.rows)


def test_a_model_without_gradients_is_attacked_by_its_holder_all_the_same(table: Target) -> None:
    evidence = run(WhiteBoxEvasion, table)
    assert "no gradients" in evidence.reason
    assert evidence.strength == "moderate"
    assert evidence.metric("success rate").value >= run(LabelEvasion, table).metric("success rate").value


@pytest.mark.claim("loop-5")
def test_hidden_scores_stop_the_score_attack_but_not_the_label_attack_nor_the_holder(table: Target) -> None:
    hardened = replace(table, model=harden_answers(table.model, "label"), bare=table.model)
    with pytest.raises(NotApplicable, match="labels only"):
        run(ScoreEvasion, hardened)
    open_, closed = run(LabelEvasion, table), run(LabelEvasion, hardened)
    assert closed.rows == open_.rows
    assert run(WhiteBoxEvasion, hardened).rows == run(WhiteBoxEvasion, table).rows


def test_the_score_attack_goes_through_rounded_answers(table: Target) -> None:
    rounded = replace(table, model=harden_answers(table.model, {"round": 1}), bare=table.model)
    assert run(ScoreEvasion, rounded).metric("success rate").value > 0


def test_the_same_rows_are_attacked_whatever_the_model_seed_or_probe(table: Target) -> None:
    first = {row.unit for row in run(LabelEvasion, table, seed=1).rows}
    assert first == {row.unit for row in run(ScoreEvasion, table, seed=2).rows}
    shuffled = table.holdout.take(np.random.default_rng(0).permutation(len(table.holdout)))
    chosen = set(table.holdout.ids[chosen_rows(table.holdout, 60)])
    assert set(shuffled.ids[chosen_rows(shuffled, 60)]) == chosen
    assert first <= chosen


@pytest.mark.slow
def test_gradients_that_lead_nowhere_are_found_out(pictures: Target) -> None:
    class Masked(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x).detach() + 1e-6 * (x.flatten(1)[:, :3] - x.flatten(1)[:, :3].detach())

    context = Context(sample=pictures.holdout.x[:3], classes=("a", "b", "c"), fixed=True)
    masked = TorchModel(Masked(pictures.model.module), context)
    assert masked.access == Access.GRADIENTS
    honest, evidence = run(WhiteBoxEvasion, pictures), run(WhiteBoxEvasion, replace(pictures, model=masked))
    assert not any("mislead" in finding for finding in honest.findings)
    assert any("mislead" in finding for finding in evidence.findings)
    assert evidence.metric("success rate").value >= 0.6 * honest.metric("success rate").value


def test_values_stay_out_of_evidence_unless_the_user_opted_in(table: Target, pictures: Target) -> None:
    for probe in PROBES:
        cells = [cell for example in run(probe, table).examples for cell in example.changed]
        assert cells
        assert all(cell.before is None and cell.after is None for cell in cells)
        assert {cell.feature for cell in cells} <= set(table.holdout.x.columns)
    opted = run(LabelEvasion, replace(table, show_values=True))
    assert all(cell.before != cell.after and cell.before for example in opted.examples for cell in example.changed)
    assert all(example.image_before is None for example in run(LabelEvasion, pictures).examples)
    shown = run(LabelEvasion, replace(pictures, show_values=True)).examples
    assert all(base64.b64decode(example.image_after or "").startswith(b"\x89PNG") for example in shown)


def test_a_picture_is_what_it_shows() -> None:
    from io import BytesIO

    from PIL import Image

    x = np.random.default_rng(0).uniform(-1, 1, size=(3, 5, 7))
    image = np.asarray(Image.open(BytesIO(base64.b64decode(picture(x, -1, 1) or ""))))
    expected = np.round((np.moveaxis(x, 0, -1) + 1) / 2 * 255).astype(np.uint8)
    assert image.shape == (65, 91, 3)
    assert np.array_equal(image[::13, ::13], expected)
    assert picture(np.zeros((64,)), 0, 1) is None
    assert picture(np.zeros((5, 7, 2)), 0, 1) is None


def test_declared_constraints_hold_in_every_example(table: Target) -> None:
    spec = DomainSpec(radius=2.0, immutable=("age", "ward"), costs={"smoker": 3.0}, norm="l2")
    target = replace(table, domain=spec, show_values=True)
    for probe in PROBES:
        for example in run(probe, target).examples:
            assert not {"age", "ward", "smoker"} & {cell.feature for cell in example.changed}
            assert example.distance <= 2.0 + 1e-4


@pytest.mark.parametrize("probe", PROBES)
class TestScope:
    def test_a_constant_model_is_no_robust_model(self, probe) -> None:
        target = made_target(DummyClassifier(strategy="most_frequent"), people(400, 0), train=200)
        with pytest.raises(Inconclusive):
            run(probe, target)

    def test_a_model_no_better_than_the_commonest_answer_is_inconclusive(self, probe) -> None:
        target = made_target(DummyClassifier(strategy="stratified", random_state=0), people(400, 0), train=200)
        with pytest.raises(Inconclusive, match="not above"):
            run(probe, target)

    def test_too_few_rows_are_inconclusive(self, probe, table: Target) -> None:
        with pytest.raises(Inconclusive):
            run(probe, replace(table, holdout=table.holdout.take(np.arange(15))))
        with pytest.raises(Inconclusive, match="handled correctly"):
            run(probe, table, replace(BUDGET, rows=10))

    def test_nan_answers_are_inconclusive(self, probe, table: Target) -> None:
        @dataclass
        class Broken:
            access: Access = Access.SCORES
            classes: tuple[str, ...] = ("0", "1")
            framework: str = "python"

            def labels(self, x):
                return table.model.labels(x)

            def scores(self, x):
                return np.full((len(x), 2), np.nan)

            def value_and_gradient(self, x, loss):
                raise AssertionError

        with pytest.raises(Inconclusive, match="NaN"):
            run(probe, replace(table, model=Broken()))

    def test_nothing_to_change_is_said_in_advance(self, probe, table: Target) -> None:
        columns = tuple(table.holdout.x.columns)
        with pytest.raises(NotApplicable, match="no column may be changed"):
            probe().check(replace(table, domain=DomainSpec(immutable=columns)))
        with pytest.raises(Unmeasured, match="no column can be changed"):
            probe().check(replace(table, domain=DomainSpec(immutable=("income", "pressure"), radius=0.001)))
        with pytest.raises(Unmeasured, match="within a radius of 0"):
            probe().check(replace(table, domain=DomainSpec(radius=0.0)))


def test_clusters_widen_the_interval(table: Target) -> None:
    clusters = (np.arange(len(table.holdout)) // 10).astype(str)
    clustered = run(LabelEvasion, replace(table, holdout=replace(table.holdout, clusters=clusters)))
    plain = run(LabelEvasion, table)
    assert all(row.cluster is not None for row in clustered.rows)
    assert [row.capability for row in clustered.rows] == [row.capability for row in plain.rows]


def test_answers_that_vary_on_changed_rows_only_are_said_to(table: Target) -> None:
    known = set(table.holdout.x["income"])

    class Wavering:
        access, classes, framework = Access.LABELS, ("0", "1"), "python"

        def __init__(self) -> None:
            self.random = np.random.default_rng(0)

        def labels(self, x):
            answer = table.model.labels(x)
            wavers = ~x["income"].isin(known).to_numpy() & (self.random.random(len(x)) < 0.2)
            return np.where(wavers, 1 - answer, answer)

    assert "differently" in run(LabelEvasion, replace(table, model=Wavering())).reason
    assert "differently" not in run(LabelEvasion, table).reason


def test_rows_with_infinite_cells_are_left_out_and_missing_cells_stay_missing() -> None:
    data = people(1000, 0, noise=0.1)
    x = data.x.copy()
    x.loc[::5, "pressure"] = np.nan
    target = made_target(forest(), replace(data, x=x), train=500)
    field = surface(target, np.arange(100))
    decoded = field.inputs(field.x)
    pd.testing.assert_frame_equal(decoded, target.holdout.x.iloc[:100].reset_index(drop=True), check_exact=True)
    assert run(LabelEvasion, target).status == "measured"
    broken = target.holdout.x.copy()
    broken.loc[3, "income"] = np.inf
    assert len(surface(replace(target, holdout=replace(target.holdout, x=broken)), np.arange(10))) == 9


def test_a_linear_model_on_a_table_falls_at_its_closed_form_distance() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame(random.normal(size=(600, 4)), columns=list("abcd"))
    y = (x["a"] + 0.5 * x["b"] > 0).to_numpy().astype(np.int64)
    data = Dataset(name="linear", x=x, y=y, classes=("0", "1"), ids=np.arange(600).astype(str))
    fitted = LogisticRegression(C=1000).fit(x[:300], y[:300])
    holdout = data.take(np.arange(300, 600))
    target = Target(name="linear", model=as_model(fitted, data), modality="tabular", holdout=holdout)
    scale = holdout.x.std(ddof=0).to_numpy()
    for probe, slack in ((WhiteBoxEvasion, 1.25), (LabelEvasion, 1.25)):
        evidence = run(probe, target, replace(BUDGET, queries=400))
        for row in evidence.rows:
            at = np.flatnonzero(holdout.ids == row.unit)[0]
            closed = abs(fitted.decision_function(holdout.x.iloc[[at]])[0]) / (np.abs(fitted.coef_[0]) * scale).sum()
            if closed * slack < 0.5 and probe is WhiteBoxEvasion:
                assert row.success
            if row.success:
                assert row.detail["distance"] >= closed * 0.999


class Readings(torch.nn.Module):
    """A small network on the numbers of a table, trained where it is made."""

    def __init__(self, x: pd.DataFrame, y: np.ndarray) -> None:
        super().__init__()
        torch.manual_seed(0)
        numbers = torch.as_tensor(x.to_numpy(dtype=np.float32))
        self.register_buffer("mean", numbers.mean(dim=0))
        self.register_buffer("spread", numbers.std(dim=0))
        self.layers = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 24), torch.nn.Tanh(), torch.nn.Linear(24, 3))
        optimiser = torch.optim.Adam(self.parameters(), 0.02)
        for _ in range(150):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(self(numbers), torch.as_tensor(y)).backward()
            optimiser.step()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - self.mean) / self.spread)


@dataclass
class Watched:
    """A model that remembers how often it was asked for gradients."""

    model: Any
    gradients: int = 0

    def __post_init__(self) -> None:
        self.access, self.classes, self.framework = self.model.access, self.model.classes, self.model.framework
        self.labels, self.scores = self.model.labels, self.model.scores

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        self.gradients += len(x)
        return self.model.value_and_gradient(x, loss)


@dataclass
class Shown:
    """A model whose gradients are out of sight."""

    model: Any
    access: Access = Access.SCORES

    def __post_init__(self) -> None:
        self.classes, self.framework = self.model.classes, self.model.framework
        self.labels, self.scores = self.model.labels, self.model.scores
        self.value_and_gradient = None


@pytest.fixture(scope="module")
def readings() -> Target:
    random = np.random.default_rng(5)
    columns = {
        "age": random.integers(18, 90, 500),
        "level": random.normal(900, 300, 500).astype(np.float32),
        "rate": random.normal(0.02, 0.01, 500),
        "visits": random.poisson(4, 500).astype(np.float64),
        "smoker": random.random(500) < 0.4,
    }
    x = pd.DataFrame(columns)
    drive = (x["age"] - 50) / 20 + (x["level"] - 900) / 200 + (x["rate"] - 0.02) * 100 + (x["visits"] - 4) / 2
    y = np.digitize(drive + 2 * np.sin(x["level"] / 150), [-1.0, 1.5]).astype(np.int64)
    model = TorchModel(Readings(x, y), Context(sample=x[:3], classes=("a", "b", "c"), fixed=True))
    data = Dataset(name="holdout", x=x, y=y, classes=("a", "b", "c"), ids=np.arange(500).astype(str))
    return Target(name="readings", model=model, modality="tabular", holdout=data)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_differentiable_model_of_tables_is_attacked_by_its_gradients(readings: Target, norm: Any) -> None:
    assert readings.differentiable
    spec = DomainSpec(immutable=("age",), integer=("visits",), norm=norm, radius=0.6)
    watched = Watched(readings.model)
    target = replace(readings, model=watched, domain=spec, show_values=True)
    evidence = run(WhiteBoxEvasion, target)
    assert watched.gradients > 0
    assert evidence.spent.backward == watched.gradients
    assert evidence.strength == "strong"
    assert "through the table's encoding" in evidence.method
    assert "no gradients" not in evidence.reason
    without = run(WhiteBoxEvasion, replace(target, model=Shown(readings.model)))
    assert without.spent.backward == 0
    assert "no gradients" in without.reason
    assert evidence.metric("success rate").value >= without.metric("success rate").value > 0
    assert "APGD" in {row.detail["attack"] for row in evidence.rows}
    assert not any("gradients mislead:" in finding for finding in evidence.findings)
    for example in evidence.examples:
        cells = {cell.feature: cell for cell in example.changed}
        assert "age" not in cells
        assert float(cells["visits"].after).is_integer() if "visits" in cells else True


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_every_row_that_gradients_find_in_a_table_is_valid_and_flips_the_model_on_the_frame(readings: Target, norm: Any) -> None:
    relation = Relation(weights={"visits": 100.0, "level": 1.0}, bound=1500.0)
    bounds = {"rate": (0.0, 0.05)}
    radius = 1.0 if norm in ("linf", "l2") else 2.0
    spec = DomainSpec(immutable=("age",), integer=("visits",), norm=norm, radius=radius, relations=(relation,), bounds=bounds)
    target = replace(readings, domain=spec)
    field = surface(target, chosen_rows(target.holdout, 40))
    found, by = flips.narrow(target.model, field, [APGD(steps=20, targets=2)], flips.tested_radii(field)[:2], 0, 1, Silent())
    assert found.success.sum() >= 5
    assert set(by[found.success]) == {0}
    before = field.inputs(field.x[found.success])
    after = field.inputs(found.adversarial[found.success])
    assert (target.model.labels(after) != field.y[found.success]).all()
    assert field.domain.contains(field.x[found.success], found.adversarial[found.success]).all()
    assert (after.dtypes == target.holdout.x.dtypes).all()
    assert (after["age"] == before["age"]).all()
    kept = 100 * before["visits"] + before["level"] <= 1500
    assert (100 * after["visits"] + after["level"] <= 1500 + 1e-3)[kept].all()
    assert (after["rate"] <= np.maximum(before["rate"], 0.05)).all()
    assert (after["visits"] % 1 == 0).all()
    assert norm in ("l1", "l0") or (after["visits"] != before["visits"]).any()


def test_gradients_that_end_at_a_column_of_text_are_not_said_to_be_missing(readings: Target) -> None:
    class Reader:
        access, classes, framework = Access.GRADIENTS, readings.model.classes, "python"

        def labels(self, x: Any) -> Any:
            return readings.model.labels(x.drop(columns="ward"))

        def scores(self, x: Any) -> Any:
            return readings.model.scores(x.drop(columns="ward"))

        def value_and_gradient(self, x: Any, loss: Any) -> Any:
            raise AssertionError

    frame = readings.holdout.x.assign(ward=np.resize(["north", "south"], 500))
    evidence = run(WhiteBoxEvasion, replace(readings, model=Reader(), holdout=replace(readings.holdout, x=frame)))
    assert "end at columns that hold no numbers" in evidence.reason
    assert "no gradients" not in evidence.reason
    assert evidence.strength == "moderate"


class Turning:
    """The table's model until so many rows were answered, or while it is told to turn; then what the test says."""

    access, classes, framework = Access.SCORES, ("0", "1"), "python"

    def __init__(self, model: Any, later: Any, after: float = np.inf) -> None:
        self.model, self.later, self.after, self.rows, self.turned = model, later, after, 0, False

    def scores(self, x: Any) -> Any:
        self.rows += len(x)
        scores = np.asarray(self.model.scores(x))
        return self.later(scores) if self.turned or self.rows > self.after else scores

    def labels(self, x: Any) -> Any:
        return self.scores(x).argmax(axis=1)

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        raise AssertionError("gradients of a model that has none")


def constant(scores: Any) -> Any:
    return np.tile(np.log([0.9, 0.1]), (len(scores), 1))


def some_otherwise(scores: Any) -> Any:
    return np.where((np.arange(len(scores)) % 20 == 0)[:, None], scores[:, ::-1], scores)


@pytest.mark.slow
@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("later", [constant, some_otherwise])
def test_a_model_that_becomes_another_during_the_attack_is_inconclusive_whenever_it_does(
    probe: Any, later: Any, table: Target
) -> None:
    steady = Turning(table.model, later)
    assert run(probe, replace(table, model=steady)).status == "measured"
    asked_before = 2 * len(table.holdout) + 4 * ASKED_TWICE
    originals = len(surface(table, chosen_rows(table.holdout, BUDGET.rows)).originals)
    for after in (asked_before + originals + 1, asked_before + originals + 700, steady.rows // 2):
        with pytest.raises(Inconclusive, match="during the attack"):
            run(probe, replace(table, model=Turning(table.model, later, after)))
    with pytest.raises(Inconclusive, match=r"same answer to all|during the attack"):
        run(probe, replace(table, model=Turning(table.model, constant, asked_before)))


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("batch", [0, 20, 40])
def test_a_model_that_is_another_for_one_batch_only_is_inconclusive(
    table: Target, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    model = Turning(table.model, constant)

    class Switch(Silent):
        def advance(self, step: str, done: int, total: int) -> None:
            model.turned = done == batch

    monkeypatch.setattr(flips, "ATTACKED_AT_ONCE", 20)
    monkeypatch.setattr(flips, "_close", closing_steady(model, flips._close))
    field = surface(table, chosen_rows(table.holdout, 60))
    with pytest.raises(Inconclusive, match="changed during the attack"):
        flips.by_queries(model, field, flips.label_walk(field), 40, 3, Switch())


def closing_steady(model: Turning, close: Any) -> Any:
    """The last look at the model, at which it behaves as it did at first."""

    def closed(*told: Any) -> None:
        model.turned = False
        close(*told)

    return closed


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("probe", PROBES)
def test_copies_of_few_rows_are_no_evidence(probe: Any, table: Target) -> None:
    right = np.flatnonzero(table.model.labels(table.holdout.x) == table.holdout.y)
    y = table.holdout.y[right]
    ten = np.concatenate([right[y == 0][:5], right[y == 1][:5]])
    copied = table.holdout.take(np.repeat(ten, 60))
    copied = replace(copied, ids=np.arange(600).astype(str))
    for clusters in (None, copied.ids):
        with pytest.raises(Inconclusive, match="only 10 of 600 holdout rows have distinct inputs"):
            run(probe, replace(table, holdout=replace(copied, clusters=clusters)))


@pytest.mark.claim("loop-2")
def test_copies_among_the_rows_share_a_cluster_and_widen_the_interval(table: Target) -> None:
    plain = table.holdout.take(np.arange(100))
    copied = plain.take(np.repeat(np.arange(100), 4))
    copied = replace(copied, ids=np.char.add(copied.ids, np.tile(["", "b", "c", "d"], 100)))
    once = run(LabelEvasion, replace(table, holdout=plain), replace(BUDGET, rows=400))
    evidence = run(LabelEvasion, replace(table, holdout=copied), replace(BUDGET, rows=400))
    assert all(row.cluster is None for row in once.rows)
    assert all(row.cluster == row.unit.rstrip("bcd") for row in evidence.rows)
    assert len(evidence.rows) == 4 * len(once.rows)
    narrow, wide = (one.metric("clean accuracy") for one in (evidence, once))
    assert narrow.high - narrow.low >= 0.95 * (wide.high - wide.low)
