"""Guessing a missing field: bands and types are right, the model's door is kept, and gain shows where there is any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from holdfast.attacks.privacy.attributes import Candidates, FieldGuesser, FieldModel
from holdfast.core.errors import Inconclusive, InvalidData, QueryBudgetExceeded
from holdfast.core.oracle import Access, Oracle
from holdfast.core.target import Dataset


def secrets(rows: int, seed: int) -> Dataset:
    """A field that nothing but the label tells of, and the label only through the model's other input."""
    random = np.random.default_rng(seed)
    x = pd.DataFrame({"known": random.normal(size=rows), "secret": random.choice(["none", "some", "much"], rows)})
    y = random.integers(0, 2, rows)
    return Dataset(name="s", x=x, y=y, classes=("a", "b"), ids=np.arange(rows).astype(str))


class Tells:
    """Knows every label, and doubts those of people it was trained on when their secret is changed; not at strength 0."""

    def __init__(self, data: Dataset, strength: float, access: Access = Access.SCORES, strangers: Dataset | None = None) -> None:
        self.truth = dict(zip(data.x["known"], zip(data.x["secret"], data.y, strict=True), strict=True))
        if strangers is not None:
            self.truth |= dict(zip(strangers.x["known"], zip([None] * len(strangers), strangers.y, strict=True), strict=True))
        self.strength = strength
        self.access = access

    def scores(self, x):
        right = []
        for known, secret in zip(x["known"], x["secret"], strict=True):
            held, label = self.truth.get(known, (None, 0))
            right.append((1 if label else -1) * self.strength * (1 if held in (None, secret) else -0.2))
        return np.stack([np.zeros(len(x)), np.array(right)], axis=1)

    def labels(self, x):
        return self.scores(x).argmax(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("access", [Access.SCORES, Access.LABELS])
def test_a_model_that_remembers_gives_the_field_away_and_one_that_does_not_does_not(access):
    own, victims = secrets(600, 0), secrets(600, 1)
    won = {}
    for strength in (0.0, 4.0):
        model = Tells(victims, strength, access, own)
        attack = FieldGuesser(Oracle(model, access, len(own)), own, "secret", seed=0)
        guesses = attack.guess(Oracle(model, access, len(victims), 3), victims)
        assert abs((guesses.imputer == guesses.truth).mean() - 1 / 3) < 0.1
        won[strength] = max((guessed == guesses.truth).mean() for guessed in guesses.with_model.values())
    assert won[4.0] > 0.9
    assert won[0.0] < 0.45


def test_every_record_costs_one_query_a_candidate_and_no_more():
    own, victims = secrets(300, 0), secrets(100, 1)
    model = Tells(victims, 1.0)
    learning = Oracle(model, Access.SCORES, len(own))
    attack = FieldGuesser(learning, own, "secret", seed=0)
    oracle = Oracle(model, Access.SCORES, len(victims), 3)
    attack.guess(oracle, victims)
    assert (learning.cost.queries == 3).all()
    assert (oracle.cost.queries == 3).all()
    with pytest.raises(QueryBudgetExceeded):
        attack.guess(oracle, victims)


def test_numbers_are_guessed_in_bands_that_hold_data():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"n": np.concatenate([np.zeros(700), random.normal(5, 1, 300)])})
    found = Candidates.of(frame, "n")
    codes = found.codes(frame)
    assert found.edges is not None
    assert set(codes) == set(range(len(found.values)))
    for code, value in enumerate(found.values):
        assert found.codes(pd.DataFrame({"n": [value]}))[0] == code
    assert found.codes(pd.DataFrame({"n": [np.nan, -99.0, 99.0]})).tolist() == [-1, 0, len(found.values) - 1]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([True, False] * 30),
        pd.Series([1, 2, 3] * 20),
        pd.Series(["a", "b"] * 30, dtype="category"),
        pd.Series([1, None, 2] * 20, dtype="Int64"),
        pd.Series([0.5, np.nan, 1.5] * 20),
        pd.Series(["a", None, "b"] * 20, dtype="string"),
    ],
)
def test_filling_in_keeps_the_type(values):
    frame = pd.DataFrame({"other": 1.0, "field": values})
    found = Candidates.of(frame, "field")
    codes = found.codes(frame)
    assert ((codes == -1) == frame["field"].isna()).all()
    for code in range(len(found.values)):
        filled = found.filled(frame, code)
        assert filled["field"].dtype == frame["field"].dtype
        assert (found.codes(filled) == code).all()
        assert frame["field"].equals(pd.Series(values, name="field"))


def test_what_cannot_be_guessed_is_refused():
    own = secrets(300, 0)
    with pytest.raises(Inconclusive, match="nothing to guess"):
        Candidates.of(own.x.assign(secret="none"), "secret")
    with pytest.raises(InvalidData):
        FieldGuesser(Oracle(Tells(own, 1.0), Access.SCORES, 300), own, "absent", seed=0)
    small = own.take(np.arange(20))
    with pytest.raises(Inconclusive, match="records have a value"):
        FieldGuesser(Oracle(Tells(own, 1.0), Access.SCORES, 20), small, "secret", seed=0)


@pytest.mark.slow
def test_several_records_of_one_person_do_not_teach_the_imputer_people():
    base = secrets(400, 2)
    many = base.take(np.repeat(np.arange(400), 6))
    chosen, trusted = {}, {}
    for name, sample in (("people", replace(many, clusters=many.ids)), ("rows", many)):
        model = Tells(base, 0.0, Access.SCORES, base)
        oracle = Oracle(model, Access.SCORES, len(sample))
        guesser = FieldGuesser(oracle, sample, "secret", seed=0)
        chosen[name], trusted[name] = int(oracle.cost.queries.sum()), guesser._imputer.trust
    assert chosen == {"people": 1200, "rows": 7200}
    assert trusted["people"] == 0
    assert trusted["rows"] > 0.5


def test_a_field_model_is_trusted_as_far_as_it_is_right():
    random = np.random.default_rng(0)
    features, codes = random.normal(size=(600, 3)), random.choice([0, 1, 2], 600, p=[0.6, 0.3, 0.1])
    noise = FieldModel.fitted(features, codes, None, 0)
    assert noise.trust == 0
    assert noise.shares(features[:1])[0] == pytest.approx(np.bincount(codes) / 600)
    known = FieldModel.fitted(np.column_stack([features, codes + 0.1 * random.normal(size=600)]), codes, None, 0)
    assert known.trust == 1
