"""Forged pickles of listed names only, whose compiled code would leave its memory: each is refused, and was seen to crash."""

from __future__ import annotations

import contextlib
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sparse
from sklearn import cluster, compose, ensemble, linear_model, neighbors, pipeline, preprocessing, tree
from sklearn.datasets import load_iris
from sklearn.feature_extraction import DictVectorizer

from holdfast.artifacts.checking import check_file, unlisted_uses
from holdfast.artifacts.constructors import make_array, make_arrow_array, make_buffer, make_tree
from holdfast.artifacts.containers import check_dtype
from holdfast.artifacts.loading import load_object
from holdfast.artifacts.objects import check_objects
from holdfast.artifacts.pickles import walk_pickle
from holdfast.core.errors import InvalidModel

X, Y = load_iris(return_X_y=True)
TWO = Y < 2
FAR = 1_900_000_000


class Rebuilt:
    """Pickles as a call, with a state of our own."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def with_values(model: Any, **values: Any) -> Any:
    vars(model).update(values)
    return model


def without(model: Any, name: str) -> Any:
    del vars(model)[name]
    return model


def far_tree() -> Any:
    model = tree.DecisionTreeClassifier().fit(X, Y)
    function, (_, classes, outputs), state = model.tree_.__reduce__()
    state["nodes"]["feature"][state["nodes"]["left_child"] >= 0] = FAR
    model.tree_ = Rebuilt(function, (2_000_000_000, classes, outputs), state)
    return model


def tree_of(*arguments: Any) -> Any:
    model = tree.DecisionTreeClassifier().fit(X, Y)
    function, _, state = model.tree_.__reduce__()
    model.tree_ = Rebuilt(function, arguments, state)
    return model


def tree_of_false_leaves() -> Any:
    model = tree.DecisionTreeClassifier().fit(X, Y)
    function, arguments, state = model.tree_.__reduce__()
    state["nodes"]["left_child"] = state["nodes"]["right_child"] = -500_000_000
    model.tree_ = Rebuilt(function, arguments, state)
    return model


def shallow_tree() -> Any:
    model = tree.DecisionTreeClassifier().fit(X, Y)
    function, arguments, state = model.tree_.__reduce__()
    model.tree_ = Rebuilt(function, arguments, state | {"max_depth": 0})
    return model


def boosted(**values: Any) -> Any:
    return with_values(ensemble.GradientBoostingClassifier(n_estimators=2, max_depth=2).fit(X[TWO], Y[TWO]), **values)


def wide_boosting() -> Any:
    model = boosted()
    model.estimators_ = np.repeat(model.estimators_, 5000, axis=1)
    return model


def boosting_with_start(width: int) -> Any:
    three = ensemble.GradientBoostingClassifier(n_estimators=2, max_depth=2).fit(X, Y)
    start = three.init_
    start.class_prior_ = np.full(width, 1 / width)
    start.classes_, start.n_classes_ = np.arange(width), width
    three.init_ = start
    return three


def boosting_of_several_outputs() -> Any:
    model = boosted()
    model.estimators_[0, 0] = tree.DecisionTreeRegressor(max_depth=2).fit(X[TWO], np.c_[Y[TWO], Y[TWO]])
    return model


def histogram(change: Callable[[Any], None], categorical: bool = True) -> Any:
    frame = np.c_[np.arange(60) % 3, np.arange(60.0), np.arange(60) % 7]
    kinds = [0, 2] if categorical else None
    model = ensemble.HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=1, categorical_features=kinds)
    model.fit(frame, np.arange(60) % 2 ^ (np.arange(60) % 3 == 1))
    change(model)
    return model


def set_nodes(name: str, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        nodes = model._predictors[0][0].nodes
        nodes[name][nodes["is_leaf"] == 0] = value

    return change


def one_column(model: Any) -> None:
    mask = np.array([True, False, False])
    model._preprocessor.transformers_ = [(model._preprocessor.transformers_[0][0], "passthrough", mask)]


def categorical_numbers(model: Any) -> None:
    for predictor in (predictor for stage in model._predictors for predictor in stage):
        predictor.nodes["is_categorical"] = 1
        predictor.nodes["bitset_idx"] = 0
        predictor.raw_left_cat_bitsets = predictor.binned_left_cat_bitsets = np.zeros((1, 8), dtype=np.uint32)


def narrow_sets(model: Any) -> None:
    predictor = model._predictors[0][0]
    predictor.raw_left_cat_bitsets = predictor.binned_left_cat_bitsets = np.zeros((9, 0), dtype=np.uint32)


def arrow(length: int, offsets: bytes, content: bytes, *, missing: int = 0, kind: Any = None) -> tuple[Any, ...]:
    buffers = [None, Rebuilt(pa.py_buffer, (offsets,)), Rebuilt(pa.py_buffer, (content,))]
    return kind or pa.string(), length, missing, 0, buffers, [], None


def arrow_classes() -> Any:
    model = linear_model.LogisticRegression().fit(X, Y)
    model.classes_ = Rebuilt(pa.lib._restore_array, (arrow(50_000_000, b"\0" * 16, b"x" * 16),))
    return model


def spline(**values: Any) -> Any:
    model = pipeline.make_pipeline(preprocessing.SplineTransformer(extrapolation="continue"), linear_model.LogisticRegression())
    model.fit(X, Y)
    for part in model[0].bsplines_:
        vars(part).update({name: value(vars(part)[name]) for name, value in values.items()})
    return model


def neighbours(**values: Any) -> Any:
    return with_values(neighbors.KNeighborsClassifier(algorithm="brute", metric="manhattan").fit(X, Y), **values)


def categories() -> Any:
    values = pd.Categorical(["a", "b"])
    function, arguments, state = values.__reduce_ex__(4)[:3] if len(values.__reduce_ex__(4)) > 2 else (*values.__reduce_ex__(4),)
    codes = np.full(2, 100, dtype=np.int8)
    state = (state[0], codes, *state[2:])
    return Rebuilt(function, arguments, state)


def levels() -> Any:
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]])
    function, (kind, held), *_ = index.__reduce__()
    held["codes"] = [np.full(4, 10**6), np.zeros(4, dtype=int)]
    return Rebuilt(function, (kind, held))


def cluster_centres(kind: Any, width: int) -> Any:
    return with_values(kind(n_clusters=2, random_state=0).fit(X), cluster_centers_=np.zeros((100_000, width)))


def random_numbers() -> Any:
    function, arguments, state = np.random.RandomState(0).__reduce__()
    state["state"]["pos"] = 10**9
    return Rebuilt(function, arguments, state)


def vocabulary() -> Any:
    return with_values(DictVectorizer().fit([{"a": 1, "b": 2}]), vocabulary_={"a": 0, "b": 10**9})


def shadowed() -> Any:
    model = ensemble.RandomForestClassifier(2).fit(X, Y)
    return with_values(model, _validate_X_predict=np.absolute)


FORGED: dict[str, Callable[[], Any]] = {
    "tree far": far_tree,
    "tree without a width": lambda: without(far_tree(), "n_features_in_"),
    **{
        f"tree width {value!r}": lambda value=value: with_values(far_tree(), n_features_in_=value)
        for value in ("4", float("nan"), True, None, 4.0)
    },
    "tree classes": lambda: tree_of(4, np.array([3]), 900_000),
    "tree of no class": lambda: tree_of(4, np.array([0]), 1),
    "tree false leaves": tree_of_false_leaves,
    "tree depth": shallow_tree,
    "histogram without a width": lambda: without(histogram(set_nodes("feature_idx", FAR)), "n_features_in_"),
    "histogram far": lambda: histogram(set_nodes("feature_idx", FAR)),
    "histogram bitset": lambda: histogram(lambda m: (set_nodes("is_categorical", 1)(m), set_nodes("bitset_idx", 10**6)(m))),
    "histogram numbers as categories": lambda: histogram(categorical_numbers),
    "histogram narrow sets": lambda: histogram(narrow_sets),
    "histogram short mapper": lambda: histogram(lambda m: with_values(m._bin_mapper, is_categorical_=np.ones(1, dtype=np.uint8))),
    "histogram preprocessor": lambda: histogram(one_column),
    "forest without a width": lambda: without(ensemble.RandomForestClassifier(2).fit(X, Y), "n_features_in_"),
    "forest of others": lambda: with_values(
        ensemble.RandomForestClassifier(2).fit(X, Y), estimators_=[linear_model.LinearRegression()]
    ),
    "forest of a method": shadowed,
    "boosting width": wide_boosting,
    "boosting trees": lambda: boosted(n_trees_per_iteration_=3),
    "boosting list": lambda: boosted(estimators_=[1, 2]),
    "boosting outputs": boosting_of_several_outputs,
    "boosting base scores": lambda: boosting_with_start(2),
    "boosting start": lambda: boosted(init_=neighbors.KNeighborsClassifier().fit(X[:, :1], Y)),
    "arrow": arrow_classes,
    "spline degree": lambda: spline(k=lambda _: 100_000),
    "spline negative": lambda: spline(k=lambda _: -1),
    "spline true": lambda: spline(k=lambda _: True),
    "spline coefficients": lambda: spline(_c=lambda v: v[:2]),
    "spline knots": lambda: spline(_t=lambda v: v[:3]),
    "spline order": lambda: spline(_t=lambda v: v[::-1]),
    "spline nan": lambda: spline(_t=lambda v: np.full_like(v, np.nan)),
    "neighbour labels": lambda: neighbours(_y=np.full(len(Y), 10**12)),
    "neighbour rows": lambda: neighbours(_y=Y[:3]),
    "neighbour classes": lambda: neighbours(classes_=np.arange(1)),
    **{
        f"{kind.__name__} rows": lambda kind=kind: with_values(kind().fit(X, Y), n_samples_fit_=10**9, n_neighbors=10**6)
        for kind in (neighbors.KNeighborsRegressor, neighbors.NearestNeighbors, neighbors.KNeighborsClassifier)
    },
    "categories": categories,
    "levels": levels,
    "k-means": lambda: cluster_centres(cluster.KMeans, 1),
    "bisecting k-means": lambda: cluster_centres(cluster.BisectingKMeans, 1),
    "random numbers": random_numbers,
    "vocabulary": vocabulary,
}
CRASHING = (
    "tree without a width",
    "histogram without a width",
    "boosting width",
    "arrow",
    "tree false leaves",
    "neighbour labels",
)
OPEN = """
import pickle, sys
import numpy as np
model = pickle.load(open(sys.argv[1], "rb"))
for rows in (60, 3000):
    x = np.random.default_rng(0).normal(size=(rows, getattr(model, "n_features_in_", int(sys.argv[2]))))
    for _ in range(5):
        np.asarray(getattr(model, "classes_", 0)).tolist()
        model.predict(x)
"""


@pytest.mark.claim("loop-10")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORGED)
def test_what_would_leave_its_memory_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(FORGED[name](), 4))
    check = check_file(path)
    assert check.unlisted == ()
    with pytest.raises(InvalidModel):
        load_object(check)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CRASHING)
def test_the_forged_models_are_real(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(FORGED[name](), 4))
    width = "3" if name.startswith("histogram") else "4"
    ended = subprocess.run([sys.executable, "-c", OPEN, str(path), width], capture_output=True, timeout=120, check=False)
    assert ended.returncode < 0, ended.stderr[-500:]


@pytest.mark.parametrize(
    "state",
    [
        None,
        (pa.string(), 1),
        (pa.string(), 2, 0, 0, [None, None, None], [], None),
        (pa.string(), 2, 0, 0, [], [], None),
        (pa.string(), 2, 0, 0, [None] * 3, [1], None),
        (pa.string(), -1, 0, 0, [None] * 3, [], None),
        (pa.string(), 2**62, 0, 2**62, [None] * 3, [], None),
        (pa.int64(), 2, 0, 0, [None, pa.py_buffer(b"x")], [], None),
        ("string", 2, 0, 0, [None] * 3, [], None),
    ],
)
def test_arrow_arrays_of_another_form_are_refused(state: Any) -> None:
    with pytest.raises(InvalidModel):
        make_arrow_array(state)
    with pytest.raises(InvalidModel):
        make_arrow_array(state, state)


def test_constructors_take_nothing_else() -> None:
    for arguments in (
        (),
        (4, np.array([2])),
        (4, [2], 1),
        (0, np.array([2]), 1),
        (True, np.array([2]), 1),
        (4, np.array([2.0]), 1),
    ):
        with pytest.raises(InvalidModel):
            make_tree(*arguments)
    for make in (make_buffer, make_array):
        for arguments in ((), (np.arange(3),), (memoryview(b"x"),)):
            with pytest.raises(InvalidModel):
                make(*arguments)


def structured(offset: int, later: int | None = None) -> bytes:
    """A pickled type of 8 bytes with one number in it, whose place may be changed afterwards."""

    def place(at: int) -> bytes:
        return pickle.dumps("a", 2)[2:-1] + number + pickle.dumps(at, 2)[2:-1] + b"\x86s"

    number = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
    kind = b"cnumpy\ndtype\nX\x02\x00\x00\x00V8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00a\x85}q\x63"
    built = kind + place(offset) + b"K\x08K\x01K\x10tb"
    return b"\x80\x02" + built + (b"" if later is None else b"h\x63" + place(later) + b"0") + b"."


@pytest.mark.claim("loop-10")
def test_fields_outside_their_items_are_refused() -> None:
    assert pickle.loads(structured(4)) == np.dtype({"names": ["a"], "formats": ["f4"], "offsets": [4], "itemsize": 8})
    walk_pickle(structured(4), "m")
    for forged in (structured(5), structured(10**9), structured(-4), structured(4, 10**9)):
        with pytest.raises(InvalidModel):
            walk_pickle(forged, "m")
        with contextlib.suppress(ValueError), pytest.raises(InvalidModel):
            check_dtype(pickle.loads(forged), "m")


def test_a_structured_type_passes() -> None:
    check_dtype(np.dtype([("a", "i4"), ("b", [("c", "f8")], (2,))], align=True), "m")


@pytest.mark.claim("loop-10")
def test_only_indexes_are_restored_as_such() -> None:
    forged = Rebuilt(pd.core.indexes.base._new_Index, (np.ndarray, {"shape": (10**9,)}))
    assert unlisted_uses(walk_pickle(pickle.dumps(forged), "m"))
    assert not unlisted_uses(walk_pickle(pickle.dumps(pd.Index([1, 2])), "m"))


@pytest.mark.parametrize("labels", ["str", "category", "object"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_models_of_pandas_text_pass(labels: str, protocol: int, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": list("abcd") * 15, "kind": pd.Categorical(list("xyz") * 20), "number": np.arange(60.0)})
    frame.index = pd.MultiIndex.from_product([range(20), list("pqr")])
    names = pd.Series(["no", "yes"] * 30, dtype=labels, index=frame.index)
    encode = compose.make_column_transformer(
        (preprocessing.OneHotEncoder(), ["text", "kind"]), remainder=preprocessing.StandardScaler()
    )
    histograms = ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype", min_samples_leaf=1)
    simple = pipeline.make_pipeline(encode, linear_model.LogisticRegression()).fit(frame, names)
    columns = frame.assign(text=frame["text"].astype("category"))
    simple.labels_ = names.unique()
    simple.frame_, simple.index_, simple.values_ = columns, pd.Index(["a", "b"]), frame["text"].array
    path = tmp_path / "m.pkl"
    for model, rows in ((simple, frame), (histograms.fit(columns, names), columns)):
        path.write_bytes(pickle.dumps(model, protocol))
        assert (load_object(check_file(path)).predict(rows) == model.predict(rows)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
def test_ensembles_pass(classes: int) -> None:
    known = classes > Y
    x, y = X[known], Y[known]
    models = [
        ensemble.GradientBoostingClassifier(n_estimators=2).fit(x, y),
        ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(x, y),
        ensemble.GradientBoostingClassifier(n_estimators=2, init=linear_model.LogisticRegression()).fit(x, y),
        ensemble.GradientBoostingRegressor(n_estimators=2).fit(x, y),
        ensemble.GradientBoostingRegressor(n_estimators=2, init=linear_model.LinearRegression()).fit(x, y),
        ensemble.RandomForestRegressor(2).fit(x, np.c_[y, y]),
        ensemble.ExtraTreesClassifier(2).fit(x, np.c_[y, y]),
        ensemble.IsolationForest(n_estimators=3, max_features=2).fit(x),
        ensemble.BaggingClassifier(n_estimators=2, max_features=2).fit(x, y),
        ensemble.HistGradientBoostingClassifier(max_iter=2).fit(x, y),
        neighbors.KNeighborsClassifier().fit(x, y),
        neighbors.KNeighborsClassifier().fit(x, np.c_[y, y]),
        neighbors.KNeighborsClassifier().fit(sparse.csr_array(x), y),
        neighbors.RadiusNeighborsClassifier().fit(x, y),
        neighbors.KernelDensity().fit(x),
        cluster.BisectingKMeans(3).fit(x),
        np.random.default_rng(0),
        np.random.RandomState(0),
        np.random.Generator(np.random.Philox(0)),
    ]
    stream = io.BytesIO(pickle.dumps(models))
    check_objects(pickle.load(stream), "m")
