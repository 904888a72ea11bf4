"""Transfer through a trained copy: what it costs, that it evades without any gradient of the model, and tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from counted import Counted, digits_network, linear
from sklearn.ensemble import RandomForestClassifier

from holdfast.attacks.evasion.pgd import PGD
from holdfast.attacks.evasion.transfer import Surrogate, Transfer
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, ConfigurationError
from holdfast.core.oracle import Access
from holdfast.core.tabular import Table, Tabular

BALL = Ball(norm="linf", radius=0.2)


@pytest.fixture(scope="module")
def digits():
    network, x, y = digits_network(500)
    return network, x[:300].numpy(), x[300:380].numpy(), y[300:380]


class Flat(Counted):
    """A network whose gradient is zero everywhere: a defence that stops PGD and nobody else."""

    def value_and_gradient(self, x, loss):
        value, gradient = super().value_and_gradient(x, loss)
        return value, torch.zeros_like(gradient)


@pytest.mark.slow
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES])
def test_it_evades_a_network_whose_gradients_are_hidden_and_counts_each_answer(digits, access: Access) -> None:
    network, owned, x, y = digits
    model = Flat(network)
    by_gradient = PGD(steps=10).run(model, torch.as_tensor(x), y, BALL, seed=0)
    assert by_gradient.success.mean() < 0.3
    model.seen.clear()
    state = torch.get_rng_state()
    copy = Surrogate.trained(model, owned, BALL, classes=10, queries=400, seed=0, access=access)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(model.rows) == copy.cost.queries[0] <= 400
    assert 0 <= model.rows.min() <= model.rows.max() <= 1
    model.access = Access.LABELS
    outcome = Transfer(surrogate=copy).run(model, x, y, BALL, seed=0)
    assert outcome.success.sum() > max(2 * by_gradient.success.sum(), 0.5 * outcome.correct.sum())
    assert outcome.cost.queries.max() <= 3
    assert BALL.contains(x, outcome.adversarial).all()


def test_a_copy_of_a_linear_model_agrees_with_it() -> None:
    model, x, y = linear(classes=3, features=6, samples=400)
    ball = Ball(norm="l2", radius=0.3, low=-1, high=1)
    copy = Surrogate.trained(model, x[:300], ball, classes=3, queries=300, seed=0, access=Access.SCORES)
    assert (copy.labels(x[300:]) == y[300:]).mean() > 0.9


def test_a_result_does_not_depend_on_the_batch(digits) -> None:
    network, owned, x, y = digits
    model = Counted(network)
    copy = Surrogate.trained(model, owned, BALL, classes=10, queries=200, seed=0, rounds=1)
    together = Transfer(surrogate=copy).run(model, x[:12], y[:12], BALL, seed=0)
    alone = [Transfer(surrogate=copy).run(model, x[i : i + 1], y[i : i + 1], BALL, seed=0, units=[i]) for i in range(12)]
    assert [int(one.queries[0]) for one in alone] == together.queries.tolist()


def test_tables_are_attacked_through_their_encoding() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "visits": generator.integers(0, 30, 600),
            "bmi": generator.normal(27, 4, 600),
            "plan": generator.choice(["a", "b", "c"], 600),
        }
    )
    y = ((frame["visits"] + 3 * (frame["plan"] == "c")) > 14).to_numpy(int)
    codes = {"a": 0, "b": 1, "c": 2}
    forest = RandomForestClassifier(30, random_state=0).fit(frame.assign(plan=frame["plan"].map(codes)), y)

    class Pipeline:
        access = Access.LABELS

        def labels(self, x: pd.DataFrame) -> np.ndarray:
            return forest.predict(x.assign(plan=x["plan"].map(codes)))

    table = Table.describe(frame, immutable=["bmi"])
    domain = Tabular(table=table, radius=0.5)
    encoded = table.encode(frame)
    copy = Surrogate.trained(Pipeline(), encoded[:400], domain, classes=2, queries=400, seed=0, decode=table.decode)
    assert copy.cost.queries[0] <= 400
    outcome = Transfer(surrogate=copy).run(Pipeline(), encoded[400:], y[400:], domain, seed=0, decode=table.decode)
    near = (np.abs(frame["visits"][400:] + 3 * (frame["plan"][400:] == "c") - 14.5) < 3).to_numpy()
    assert outcome.success[near].mean() > 0.6
    after = table.decode(outcome.adversarial)
    pd.testing.assert_series_equal(after["bmi"], frame["bmi"][400:].reset_index(drop=True))
    assert set(after["plan"]) <= {"a", "b", "c"}


def test_what_cannot_be_is_refused(digits) -> None:
    network, owned, _, _ = digits
    with pytest.raises(ConfigurationError):
        Surrogate.trained(Counted(network), owned, BALL, classes=10, queries=0, seed=0)
    hidden = Counted(network, access=Access.LABELS)
    with pytest.raises(AccessDenied):
        Surrogate.trained(hidden, owned, BALL, classes=10, queries=9, seed=0, access=Access.SCORES)
