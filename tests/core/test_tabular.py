"""Tables as arrays and back, and the constraints an attacker on a table must keep."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.tabular import MISSING, Feature, Relation, Table, Tabular

NUMBER = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-200)
TEXT = st.sampled_from(["a", "B", "", "ü", "<b>x</b>", "=1+1", "nan", "None"])


@st.composite
def frames(draw, rows: int | None = None):
    """Frames with every kind of column a user may bring."""
    n = draw(st.integers(2, 8)) if rows is None else rows
    many = lambda element: draw(st.lists(element, min_size=n, max_size=n))  # noqa: E731
    return pd.DataFrame(
        {
            "float": many(NUMBER),
            "float with nan": many(NUMBER | st.just(math.nan)),
            "float32": np.array(many(st.floats(-1e6, 1e6, width=32)), dtype=np.float32),
            "int": np.array(many(st.integers(-(2**53), 2**53)), dtype=np.int64),
            "uint8": np.array(many(st.integers(0, 255)), dtype=np.uint8),
            "identifier": np.array(many(st.integers(2**60, 2**62)), dtype=np.int64),
            "nullable int": pd.array(many(st.integers(-99, 99) | st.none()), dtype="Int32"),
            "nullable float": pd.array(many(NUMBER | st.none()), dtype="Float64"),
            "bool": np.array(many(st.booleans())),
            "nullable bool": pd.array(many(st.booleans() | st.none()), dtype="boolean"),
            "str": pd.array(many(TEXT | st.none()), dtype="str"),
            "object none": pd.Series(many(TEXT | st.none()), dtype=object),
            "object nan": pd.Series(many(TEXT | st.just(math.nan)), dtype=object),
            "category": pd.Categorical(many(st.sampled_from(["low", "mid", "high"]) | st.none()), ["low", "mid", "high"], True),
            "int category": pd.Categorical(many(st.sampled_from([3, 1])), [3, 1]),
            "date": pd.to_datetime(many(st.sampled_from(["2001-02-03", "1999-12-31", None]))),
            "empty": pd.Series([None] * n, dtype=object),
            7: many(st.integers(0, 3)),
        }
    )


@settings(max_examples=30, deadline=None)
@given(frames())
def test_encoding_and_decoding_gives_the_same_frame(frame: pd.DataFrame) -> None:
    for immutable in ((), [str(name) for name in frame.columns]):
        table = Table.describe(frame, immutable=immutable)
        pd.testing.assert_frame_equal(table.decode(table.encode(frame)), frame, check_exact=True, check_column_type=False)


@settings(max_examples=30, deadline=None)
@given(frames())
def test_encoding_is_the_inverse_of_decoding(frame: pd.DataFrame) -> None:
    table = Table.describe(frame)
    encoded = table.encode(frame)
    assert np.array_equal(table.encode(table.decode(encoded)), encoded)


@st.composite
def attacks(draw):
    """A domain over a table, rows, and whatever an attack might return."""
    n = draw(st.integers(1, 5))
    frame = pd.DataFrame(
        {
            "age": np.array(draw(st.lists(st.integers(0, 100), min_size=n, max_size=n)), dtype=np.int64),
            "children": np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), dtype=np.int64),
            "income": draw(st.lists(NUMBER | st.just(math.nan), min_size=n, max_size=n)),
            "fixed": draw(st.lists(NUMBER, min_size=n, max_size=n)),
            "debt": draw(st.lists(st.floats(-10, 10), min_size=n, max_size=n)),
            "job": draw(st.lists(TEXT | st.none(), min_size=n, max_size=n)),
            "sex": draw(st.lists(st.sampled_from(["f", "m"]), min_size=n, max_size=n)),
            "member": draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        }
    )
    table = Table.describe(
        frame,
        immutable=("fixed", "sex"),
        bounds={"age": (0, 90.5), "debt": (-5.0, 5.0)},
        costs={"children": draw(st.sampled_from([0.0, 0.3, 2.0])), "job": draw(st.sampled_from([0.0, 0.5, 1.0]))},
    )
    relations = draw(
        st.sampled_from(
            [
                (),
                (Relation(weights={"children": 10.0, "age": -1.0}, bound=0.0),),
                (Relation(weights={"debt": 1.0, "income": 0.5, "fixed": -2.0}, bound=1.0, kind="equals"),),
                (Relation(weights={"age": 1.0, "debt": 1.5}, bound=50.0), Relation(weights={"children": 10.0, "age": -1.0})),
                (Relation(weights={"debt": 1.0, "age": -0.1}, kind="equals"), Relation(weights={"debt": -1.0, "children": 1.0})),
            ]
        )
    )
    domain = Tabular(
        table=table,
        norm=draw(st.sampled_from(["linf", "l2", "l1", "l0"])),
        radius=draw(st.sampled_from([0.0, 0.01, 0.5, 1.0, 2.5, math.inf])),
        relations=relations,
    )
    x0 = table.encode(frame)
    size = draw(st.sampled_from([0.1, 1.0, 10.0]))
    x = x0 + np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=x0.shape) * size
    hostile = draw(st.sampled_from(["", "flip", "nan", "inf", "zero", "half"]))
    if hostile == "flip":
        x = 1 - x0
    elif hostile == "nan":
        x[::2] = np.nan
    elif hostile == "inf":
        x[:, ::2] = np.inf
    elif hostile == "zero":
        x = np.zeros_like(x0)
    elif hostile == "half":
        x = (x + x0) / 2
    return domain, frame, x0, x


def check(domain: Tabular, frame: pd.DataFrame, x0: np.ndarray, x: np.ndarray, radius: float) -> None:
    """Every constraint, read off the decoded frame and not off the domain's own word."""
    after = domain.table.decode(x)
    assert list(after.dtypes) == list(frame.dtypes)
    for name in ("fixed", "sex"):
        pd.testing.assert_series_equal(after[name], frame[name], check_exact=True)
    for name in frame:
        assert (after[name].isna() == frame[name].isna()).all()
    for feature in domain.table.features:
        place = domain.table.columns[feature.name]
        if feature.one_hot:
            assert set(np.unique(x[:, place])) <= {0.0, 1.0}
            assert (x[:, place].sum(axis=1) == x0[:, place].sum(axis=1)).all()
        elif feature.kind != "category":
            before, value = frame[feature.name].to_numpy(float), after[feature.name].to_numpy(float)
            known = ~np.isnan(before)
            assert (value >= np.minimum(before, feature.low))[known].all()
            assert (value <= np.maximum(before, feature.high))[known].all()
            if feature.kind == "integer":
                raw = domain.table.values(x, feature.name)
                assert (raw == np.rint(raw)).all()
    if math.isfinite(radius):
        assert (domain.distance(x0, x) <= radius * (1 + 1e-4) + 1e-5).all()
    for relation in domain.relations:
        known = ~frame[list(relation.weights)].isna().any(axis=1).to_numpy()
        old, new = (sum(w * f[n].to_numpy(float) for n, w in relation.weights.items()) - relation.bound for f in (frame, after))
        slack = 1e-6 * (1 + sum(abs(w) * after[n].abs().max() for n, w in relation.weights.items()))
        if relation.kind == "equals":
            assert (np.abs(new) <= np.abs(old) + slack)[known].all()
        else:
            assert (new <= np.maximum(old, 0) + slack)[known].all()


@settings(max_examples=150, deadline=None)
@given(attacks())
def test_projected_and_repaired_rows_keep_every_constraint(case) -> None:
    domain, frame, x0, x = case
    assert domain.contains(x0, x0).all()
    projected, repaired = domain.project(x0, x), domain.repair(x0, x)
    check(domain, frame, x0, projected, domain.radius)
    check(domain, frame, x0, repaired, math.inf)
    assert domain.contains(x0, projected).all()
    assert np.array_equal(domain.project(x0, projected), projected)
    assert domain.within(math.inf).contains(x0, repaired).all()
    assert np.array_equal(domain.repair(x0, repaired), repaired)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_the_rounding_of_a_huge_number_is_no_budget_for_another(norm) -> None:
    near = float(np.nextafter(7e8, math.inf))
    frame = pd.DataFrame({"income": [7e8, near, 7e8, near, 7e8], "debt": [0.0, 1.0, 0.0, 1.0, 0.0]})
    domain = Tabular(table=Table.describe(frame), norm=norm, radius=0.0)
    x0 = domain.table.encode(frame)
    x = x0.copy()
    x[:, domain.table.columns["debt"]] += 0.05
    assert np.array_equal(domain.project(x0, x), x0)
    assert not domain.contains(x0, x).any()


@settings(max_examples=80, deadline=None)
@given(attacks(), st.integers(0, 2**32))
def test_samples_keep_every_constraint(case, seed: int) -> None:
    domain, frame, x0, _ = case
    drawn = domain.sample(x0, np.random.default_rng(seed).random(x0.shape))
    check(domain, frame, x0, drawn, domain.radius)
    assert domain.contains(x0, drawn).all()


@settings(max_examples=50, deadline=None)
@given(attacks())
def test_a_row_does_not_depend_on_its_batch(case) -> None:
    domain, _, x0, x = case
    together = domain.project(x0, x)
    for row in range(len(x0)):
        assert np.array_equal(domain.project(x0[row : row + 1], x[row : row + 1])[0], together[row])


@settings(max_examples=80, deadline=None)
@given(attacks(), st.sampled_from(["fixed", "fraction", "two hot", "bound", "missing"]))
def test_contains_is_false_for_a_row_that_breaks_a_constraint(case, fault: str) -> None:
    domain, frame, x0, _ = case
    x, at = x0.copy(), domain.table.columns
    if fault == "fixed":
        x[:, at["fixed"].start] = np.nextafter(x0[:, at["fixed"].start], np.inf)
    elif fault == "fraction":
        x[:, at["children"].start] += 0.5 / domain.table.feature("children").unit
    elif fault == "two hot":
        x[:, at["member"]] = 1.0
        assume(domain.table.feature("member").width == 2)
    elif fault == "bound":
        x[:, at["debt"].start] = (np.maximum(frame["debt"].to_numpy(), 5.0) + 1e-6) / domain.table.feature("debt").unit
    else:
        x[:, at["income"].start] = np.where(frame["income"].isna(), 0.0, MISSING)
    assert not domain.contains(x0, x).any()


def test_distance_adds_costs_in_scale_units() -> None:
    table = Table(
        [
            Feature(name="a", kind="number", low=0, high=100, scale=10, cost=2),
            Feature(name="c", kind="category", values=("x", "y", "z"), cost=3),
        ],
        {"a": np.dtype(float), "c": np.dtype(object)},
    )
    before = table.encode(pd.DataFrame({"a": [50.0], "c": pd.Series(["x"], dtype=object)}))
    after = table.encode(pd.DataFrame({"a": [70.0], "c": pd.Series(["z"], dtype=object)}))
    for norm, expected in {"linf": 4.0, "l1": 7.0, "l2": 5.0, "l0": 2.0}.items():
        assert Tabular(table=table, norm=norm).distance(before, after)[0] == pytest.approx(expected)  # type: ignore[arg-type]


def test_integers_are_rounded_towards_the_original_within_a_budget() -> None:
    frame = pd.DataFrame({"n": [0, 10]})
    table = Table.describe(frame)
    unit = table.feature("n").unit
    x0 = table.encode(frame)[:1]
    domain = Tabular(table=table, radius=1.9 / table.feature("n").scale)
    assert table.decode(domain.project(x0, x0 + 5 / unit))["n"].tolist() == [1]
    assert table.decode(domain.repair(x0, x0 + 1.9 / unit))["n"].tolist() == [2]


def test_an_equality_is_kept_by_its_first_feature() -> None:
    frame = pd.DataFrame({"total": [3.0, 10.0], "a": [1.0, 6.0], "b": [2.0, 4.0]})
    table = Table.describe(frame)
    domain = Tabular(table=table, relations=(Relation(weights={"total": 1, "a": -1, "b": -1}, kind="equals"),))
    x0 = table.encode(frame)[:1]
    x = table.encode(pd.DataFrame({"total": [3.0], "a": [4.0], "b": [2.5]}))
    assert table.decode(domain.repair(x0, x)).iloc[0].tolist() == pytest.approx([6.5, 4.0, 2.5])


def test_columns_that_are_identifiers_are_carried_along_but_not_attacked() -> None:
    frame = pd.DataFrame({"id": [f"row {i}" for i in range(1000)], "x": np.arange(1000.0)})
    table = Table.describe(frame)
    assert table.width == 2
    assert not table.feature("id").mutable
    pd.testing.assert_frame_equal(table.decode(table.encode(frame)), frame)


@pytest.mark.parametrize(
    ("settings_", "match"),
    [
        ({"immutable": ["nope"]}, "no column 'nope'"),
        ({"integer": ["half"]}, "holds 0.5"),
        ({"bounds": {"job": (0, 1)}}, "does not hold numbers"),
        ({"integer": ["job"]}, "does not hold numbers"),
        ({"bounds": {"half": (2, 1)}}, "do not describe a number"),
        ({"bounds": {"half": (0, math.inf)}}, "do not describe a number"),
        ({"costs": {"half": -1}}, "cost"),
        ({"costs": {"half": math.inf}}, "immutable"),
        ({"costs": {"half": math.nan}}, "cost"),
    ],
)
def test_a_description_that_cannot_be_is_refused(settings_, match: str) -> None:
    frame = pd.DataFrame({"half": [0.5, 1.0], "job": ["a", "b"]})
    with pytest.raises(ConfigurationError, match=match):
        Table.describe(frame, **settings_)


def test_bounds_never_exceed_what_the_column_can_hold() -> None:
    table = Table.describe(pd.DataFrame({"n": np.array([1, 2], dtype=np.uint8)}), bounds={"n": (-5, 1000)})
    assert (table.feature("n").low, table.feature("n").high) == (0, 255)


def test_frames_that_do_not_fit_are_refused() -> None:
    table = Table.describe(pd.DataFrame({"x": [1.0, 2.0], "job": ["a", "b"]}))
    with pytest.raises(InvalidData, match="no column 'job'"):
        table.encode(pd.DataFrame({"x": [1.0]}))
    with pytest.raises(InvalidData, match="not numeric"):
        table.encode(pd.DataFrame({"x": ["one"], "job": ["a"]}))
    with pytest.raises(InvalidData, match="category"):
        table.encode(pd.DataFrame({"x": [1.0], "job": ["c"]}))
    with pytest.raises(InvalidData, match="same name"):
        Table.describe(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(InvalidData, match="same name"):
        Table.describe(pd.DataFrame([[1, 2]], columns=["1", 1]))
    with pytest.raises(InvalidData, match="neither numbers nor categories"):
        Table.describe(pd.DataFrame({"x": [[1], [2]]}))
    with pytest.raises(InvalidData, match="complex"):
        Table.describe(pd.DataFrame({"x": [1j]}))


def test_relations_that_cannot_be_are_refused() -> None:
    table = Table.describe(pd.DataFrame({"x": [1.0, 2.0], "job": ["a", "b"]}))
    with pytest.raises(ConfigurationError, match="category"):
        Tabular(table=table, relations=(Relation(weights={"job": 1.0}),))
    with pytest.raises(ConfigurationError, match="no column"):
        Tabular(table=table, relations=(Relation(weights={"y": 1.0}),))
    with pytest.raises(ConfigurationError, match="at least one"):
        Relation(weights={})
    with pytest.raises(ConfigurationError, match="finite"):
        Relation(weights={"x": math.nan})


def test_no_rows_are_no_trouble() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "job": ["a", "b"]})
    table = Table.describe(frame)
    empty = table.encode(frame[:0])
    for norm in ("linf", "l2", "l1", "l0"):
        domain = Tabular(table=table, norm=norm, radius=0.5, relations=(Relation(weights={"x": 1.0}),))  # type: ignore[arg-type]
        assert domain.project(empty, empty).shape == domain.repair(empty, empty).shape == (0, 3)
        assert domain.contains(empty, empty).shape == domain.distance(empty, empty).shape == (0,)
    pd.testing.assert_frame_equal(table.decode(empty), frame[:0])
