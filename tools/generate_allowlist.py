"""Generate the allow-list of globals from real fits of the installed libraries, and print what changed.

    python -m tools.generate_allowlist [--check]

Every classifier, regressor and transformer of scikit-learn that fits a toy table is fitted and dumped by pickle (protocols
2, 4 and 5) and joblib, with variants that reach the losses, kernels, metrics, scorers and containers behind it; so are the
wrappers of XGBoost and LightGBM, pandas containers, NumPy arrays and torch state dicts. The pickle machine follows each dump
and records which names are used, and how. Nothing enters the list that no dump used in that way, and nothing at all that
can run what its arguments say.
"""

from __future__ import annotations

import collections
import datetime as dt
import io
import itertools
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from holdfast.artifacts.pickles import walk_pickle

TARGET = Path(__file__).parent.parent / "src/holdfast/artifacts/data/allowlist.json"
PACKAGES = ("scikit-learn", "numpy", "pandas", "scipy", "xgboost", "lightgbm", "torch", "joblib")
USES = {"new", "new_args", "call", "build", "append", "items", "value"}
FORBIDDEN_MODULES = (
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "importlib",
    "runpy",
    "operator",
    "functools",
    "shutil",
    "pickle",
    "_pickle",
    "types",
    "ctypes",
    "code",
    "socket",
    "webbrowser",
    "threading",
    "multiprocessing",
    "__main__",
    "tools",
)
BUILTINS = {
    "object",
    "set",
    "frozenset",
    "slice",
    "complex",
    "bytearray",
    "bool",
    "int",
    "float",
    "str",
    "bytes",
    "list",
    "dict",
    "tuple",
}
JUDGED_BY_ARGUMENTS = ("functools:partial", "builtins:getattr")
"""Used by real models; the pickle machine lets them through for a few known arguments only."""
FORBIDDEN_NAMES = {"load", "loads", "eval", "exec", "getattr", "open", "memmap", "_ufunc_reconstruct", "partial", "query"}
UFUNCS = (
    "log1p",
    "log",
    "log2",
    "log10",
    "sqrt",
    "exp",
    "expm1",
    "abs",
    "absolute",
    "sign",
    "square",
    "cbrt",
    "tanh",
    "sin",
    "cos",
)


class Collector:
    """The uses of every name, from every dump."""

    def __init__(self) -> None:
        self.uses: dict[str, set[str]] = collections.defaultdict(set)
        self.dumped = 0
        self.names: set[str] = set()
        self.failed: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], Any]) -> None:
        """Dump what `make` gives in every way; what cannot be made or dumped is listed."""
        try:
            value = make()
            for content in dumps(value):
                self.walk(name, content)
            self.dumped += 1
            self.names.add(name)
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"

    def walk(self, name: str, content: bytes, storages: bool = False) -> None:
        """Record what one dump uses."""
        walk = walk_pickle(content, name, storages=storages)
        for key, uses in walk.uses.items():
            if not uses <= USES:
                raise ValueError(f"{key} {uses - USES}")
        for key, uses in walk.uses.items():
            self.uses[key] |= uses
            if forbidden(key):
                self.failed[f"{name}, refers to {key}"] = "forbidden"


def dumps(value: Any) -> Iterator[bytes]:
    """The dumps of a value."""
    for protocol in (2, 4, 5):
        yield pickle.dumps(value, protocol)
    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    yield buffer.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Write the list, or with `--check` compare it and return 1 when names are missing."""
    warnings.simplefilter("ignore")
    collector = Collector()
    for part in (containers, losses, estimators, variants, boosters, frames):
        part(collector)
    torch_files(collector)
    names = {key: sorted(uses) for key, uses in sorted(with_aliases(collector.uses).items()) if not forbidden(key)}
    old = json.loads(TARGET.read_text())["names"] if TARGET.exists() else {}
    added = sorted(key for key in names if not set(names[key]) <= set(old.get(key, ())))
    print(f"{collector.dumped} objects dumped, {len(names)} names, {len(added)} new or used in a new way")
    for key in added:
        print(f"+ {key} {names[key]}")
    for name, why in sorted(collector.failed.items()):
        if name not in collector.names:
            print(f"not covered: {name}: {why}")
    if "--check" in (sys.argv[1:] if argv is None else argv):
        return 1 if added else 0
    document = {"format": 1, "versions": {name: version(name) for name in PACKAGES}, "names": names}
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(uses)}" for key, uses in names.items())
    head = json.dumps({"format": 1, "versions": document["versions"]})[:-1]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(f'{head}, "names": {{\n{lines}\n}}}}\n')
    return 0


def forbidden(key: str) -> bool:
    """Whether a name may never be on the list."""
    if key in JUDGED_BY_ARGUMENTS:
        return False
    module, name = key.split(":")
    package = module.split(".")[0]
    if package == "builtins":
        return name not in BUILTINS
    if package == "joblib":
        return key != "joblib.numpy_pickle:NumpyArrayWrapper"
    return package in FORBIDDEN_MODULES or bool(FORBIDDEN_NAMES & set(name.split(".")))


def with_aliases(uses: dict[str, set[str]]) -> dict[str, set[str]]:
    """NumPy's private modules under the names of versions 1 and 2 alike."""
    out = {key: set(found) for key, found in uses.items()}
    for key, found in uses.items():
        for new, old in (("numpy._core.", "numpy.core."), ("numpy.core.", "numpy._core.")):
            if key.startswith(new):
                out.setdefault(old + key.removeprefix(new), set()).update(found)
    return out


def table() -> tuple[np.ndarray, np.ndarray]:
    """A small positive table with three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return np.abs(rng.normal(size=(60, 4)) + y[:, None]) + 0.1, y


def containers(collector: Collector) -> None:
    """What estimators keep their state in."""
    rng = np.random.default_rng(0)
    values: list[Any] = [
        collections.OrderedDict(a=1),
        collections.defaultdict(int, a=1),
        collections.defaultdict(list, a=[1]),
        collections.defaultdict(float),
        collections.defaultdict(dict),
        collections.defaultdict(set),
        collections.Counter("ab"),
        collections.deque([1]),
        {1, 2},
        frozenset({1}),
        slice(1, 2),
        1 + 2j,
        bytearray(b"a"),
        b"\xff",
        dt.date(2020, 1, 1),
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        dt.timedelta(1),
        [bool, int, float, str, object, list, dict, tuple, bytes],
        np.random.RandomState(0),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.ma.masked,
        np.datetime64("2020-01-01"),
        np.array(["2020-01-01"], dtype="M8[ns]"),
        np.array([1], dtype="m8[s]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["a", None], dtype=object),
        np.array(["a", "b"]),
        np.asfortranarray(rng.normal(size=(3, 2))),
        rng.normal(size=(3, 2))[:, ::2],
        np.array(5.0),
    ]
    values += [np.dtype(kind) for kind in "?bBhHiIlLqQefdgFDGOSUVMm"]
    values += [
        getattr(np, kind) for kind in ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool_", "str_")
    ]
    values += [np.dtype(kind).type(1) for kind in "?bBhHiIlLqQefdgFDG"]
    values += [np.str_("a"), np.bytes_(b"a")]
    values += [getattr(np, name) for name in (*UFUNCS, "nan_to_num", "ravel", "mean", "median", "argmax", "nanmean", "nanmedian")]
    values += [np.random.Generator(getattr(np.random, name)(0)) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")]
    for value in values:
        collector.add(f"container {type(value).__name__}", lambda value=value: value)
    from scipy import sparse

    for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia"):
        collector.add(f"sparse {kind}", lambda kind=kind: sparse.eye(4, format=kind))
        collector.add(f"sparse array {kind}", lambda kind=kind: sparse.eye_array(4, format=kind))
    from scipy import interpolate

    collector.add("interp1d", lambda: interpolate.interp1d([0.0, 1, 2], [0.0, 1, 2]))
    collector.add("bspline", lambda: interpolate.make_interp_spline(np.arange(6.0), np.arange(6.0)))


def losses(collector: Collector) -> None:
    """Losses, links, kernels, distance metrics and scorers, which estimators hold."""
    import sklearn._loss.loss as loss_module
    from sklearn.gaussian_process import kernels
    from sklearn.metrics import DistanceMetric, get_scorer, get_scorer_names, make_scorer
    from sklearn.metrics import _classification as classification
    from sklearn.neighbors import BallTree, KDTree

    for name, kind in vars(loss_module).items():
        if isinstance(kind, type) and kind.__module__ == loss_module.__name__ and name.endswith(("Loss", "Error", "Deviance")):
            for arguments in ({}, {"n_classes": 3}, {"quantile": 0.5}, {"power": 1.5}):
                collector.add(f"loss {name}", lambda kind=kind, arguments=arguments: kind(**arguments))
    rbf = kernels.RBF()
    for kernel in (
        rbf,
        kernels.ConstantKernel() * rbf + kernels.WhiteKernel(),
        kernels.Matern(),
        kernels.RationalQuadratic(),
        kernels.ExpSineSquared(),
        kernels.DotProduct() ** 2,
        kernels.PairwiseKernel(),
        kernels.CompoundKernel([rbf]),
    ):
        collector.add("kernel", lambda kernel=kernel: kernel)
    for metric, dtype in itertools.product(
        ("euclidean", "manhattan", "chebyshev", "minkowski", "hamming", "canberra", "braycurtis", "jaccard", "haversine"),
        (np.float64, np.float32),
    ):
        collector.add(f"metric {metric}", lambda metric=metric, dtype=dtype: DistanceMetric.get_metric(metric, dtype=dtype))
    x, _ = table()
    for tree, metric in itertools.product((KDTree, BallTree), ("euclidean", "manhattan", "chebyshev", "minkowski")):
        collector.add(f"{tree.__name__}", lambda tree=tree, metric=metric: tree(x, metric=metric))
    for name in get_scorer_names():
        collector.add(f"scorer {name}", lambda name=name: get_scorer(name))
    for name in ("accuracy_score", "f1_score", "fbeta_score", "precision_score", "recall_score", "balanced_accuracy_score"):
        collector.add(f"scorer of {name}", lambda name=name: make_scorer(getattr(classification, name)))


def estimators(collector: Collector) -> None:
    """Every estimator of scikit-learn that fits the toy table, bare and in a pipeline."""
    from sklearn.utils import all_estimators
    from sklearn.utils._test_common.instance_generator import _construct_instances

    x, y = table()
    for name, kind in all_estimators():
        try:
            instances = list(_construct_instances(kind))
        except Exception as error:
            collector.failed[name] = str(error)
            continue
        for estimator in instances:
            for target in (y, y == 1, np.array(["a", "b", "c"])[y]):
                collector.add(name, lambda estimator=estimator, target=target: fitted(estimator, x, target))


def fitted(estimator: Any, x: Any, y: Any) -> Any:
    """The estimator, small and fitted."""
    from sklearn.base import clone

    estimator = clone(estimator)
    small = {"n_estimators": 3, "max_iter": 20, "n_iter": 5, "random_state": 0, "cv": 3}
    known = estimator.get_params(deep=False)
    estimator.set_params(**{name: value for name, value in small.items() if name in known and known[name] is not None})
    return estimator.fit(x, y)


def variants(collector: Collector) -> None:
    """Settings that put other helpers into the fitted estimator."""
    from sklearn import (
        calibration,
        compose,
        ensemble,
        feature_selection,
        impute,
        kernel_approximation,
        linear_model,
        model_selection,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    x, y = table()
    forest = ensemble.RandomForestClassifier
    logistic = linear_model.LogisticRegression()
    made: list[Any] = [
        *(forest(3, criterion=criterion) for criterion in ("gini", "entropy", "log_loss")),
        *(tree.DecisionTreeClassifier(splitter=splitter) for splitter in ("best", "random")),
        *(
            linear_model.SGDClassifier(loss=loss)
            for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron")
        ),
        *(linear_model.SGDClassifier(loss=loss) for loss in ("huber", "epsilon_insensitive", "squared_epsilon_insensitive")),
        *(linear_model.SGDClassifier(learning_rate=rate, eta0=0.1) for rate in ("constant", "adaptive", "invscaling")),
        *(ensemble.GradientBoostingClassifier(n_estimators=3, loss=loss) for loss in ("log_loss",)),
        *(ensemble.GradientBoostingRegressor(n_estimators=3, loss=loss) for loss in ("huber", "quantile", "absolute_error")),
        *(neighbors.KNeighborsClassifier(algorithm=how) for how in ("kd_tree", "ball_tree", "brute")),
        *(neighbors.KNeighborsClassifier(metric=metric) for metric in ("manhattan", "cosine", "hamming")),
        *(svm.SVC(kernel=kernel, probability=True) for kernel in ("linear", "rbf", "poly", "sigmoid")),
        *(neural_network.MLPClassifier(max_iter=5, solver=solver) for solver in ("adam", "sgd", "lbfgs")),
        neural_network.MLPClassifier(max_iter=5, early_stopping=True),
        ensemble.HistGradientBoostingClassifier(max_iter=3, early_stopping=True, scoring="loss"),
        ensemble.HistGradientBoostingClassifier(max_iter=3, early_stopping=True, scoring="accuracy"),
        ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features=[0], monotonic_cst={1: 1}),
        ensemble.BaggingClassifier(logistic, n_estimators=2),
        ensemble.AdaBoostClassifier(n_estimators=2),
        ensemble.ExtraTreesClassifier(3, random_state=np.random.RandomState(0)),
        calibration.CalibratedClassifierCV(logistic, method="isotonic", cv=3),
        calibration.CalibratedClassifierCV(logistic, method="sigmoid", cv=3, ensemble=False),
        model_selection.GridSearchCV(logistic, {"C": [0.1, 1.0]}, cv=3),
        model_selection.GridSearchCV(logistic, {"C": [0.1, 1.0]}, cv=model_selection.StratifiedKFold(3), scoring="f1_macro"),
        model_selection.RandomizedSearchCV(logistic, {"C": [0.1, 1.0]}, n_iter=2, cv=model_selection.KFold(3, shuffle=True)),
        pipeline.make_pipeline(preprocessing.StandardScaler(), kernel_approximation.Nystroem(n_components=5), logistic),
        pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.PolynomialFeatures(), logistic),
        pipeline.make_pipeline(impute.KNNImputer(), preprocessing.QuantileTransformer(n_quantiles=10), logistic),
        pipeline.make_pipeline(impute.MissingIndicator(features="all"), logistic),
        pipeline.make_pipeline(preprocessing.SplineTransformer(), logistic),
        pipeline.make_pipeline(preprocessing.KBinsDiscretizer(n_bins=2), logistic),
        *(pipeline.make_pipeline(preprocessing.FunctionTransformer(getattr(np, name)), logistic) for name in UFUNCS),
        *(
            pipeline.make_pipeline(feature_selection.SelectKBest(score, k=2), logistic)
            for score in (
                feature_selection.f_classif,
                feature_selection.chi2,
                feature_selection.mutual_info_classif,
                feature_selection.f_regression,
                feature_selection.mutual_info_regression,
                feature_selection.r_regression,
            )
        ),
        compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0, 1]), ("b", "passthrough", slice(2, 3))]),
    ]
    for estimator in made:
        for target in (y, y == 1):
            collector.add(type(estimator).__name__, lambda estimator=estimator, target=target: estimator.fit(x, target))
    texts(collector)


def texts(collector: Collector) -> None:
    """Vectorisers, whose vocabulary is fitted on text."""
    from sklearn.feature_extraction import DictVectorizer, FeatureHasher, text
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows, y = ["a b", "b c", "c d", "a d"], [0, 1, 0, 1]
    for vectorizer in (
        text.TfidfVectorizer(),
        text.CountVectorizer(stop_words="english", ngram_range=(1, 2)),
        text.HashingVectorizer(),
    ):
        collector.add("text", lambda vectorizer=vectorizer: make_pipeline(vectorizer, LogisticRegression()).fit(rows, y))
    collector.add("dicts", lambda: make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1}, {"b": 2}] * 2, y))
    collector.add("hasher", lambda: make_pipeline(FeatureHasher(4), LogisticRegression()).fit([{"a": 1}, {"b": 2}] * 2, y))


def boosters(collector: Collector) -> None:
    """The wrappers of XGBoost and LightGBM."""
    import lightgbm
    import xgboost

    x, y = table()
    for target in (y, (y == 1).astype(int)):
        for kind in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
            collector.add(kind.__name__, lambda kind=kind, target=target: kind(n_estimators=3).fit(x, target))
        stopped = xgboost.XGBClassifier(
            n_estimators=5, early_stopping_rounds=2, eval_metric="mlogloss" if target.max() > 1 else "logloss"
        )
        collector.add(
            "XGBClassifier stopped", lambda m=stopped, target=target: m.fit(x, target, eval_set=[(x, target)], verbose=False)
        )
        for how in ("gbdt", "dart", "rf"):
            made = lightgbm.LGBMClassifier(
                n_estimators=3, boosting_type=how, verbose=-1, min_child_samples=2, subsample=0.8, subsample_freq=1
            )
            collector.add("LGBMClassifier", lambda made=made, target=target: made.fit(x, target))
            collector.add("LGBM Booster", lambda made=made, target=target: made.fit(x, target).booster_)
        collector.add("XGB Booster", lambda target=target: xgboost.XGBClassifier(n_estimators=3).fit(x, target).get_booster())
    stopped = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, min_child_samples=2)
    collector.add(
        "LGBM stopped", lambda: stopped.fit(x, y, eval_set=[(x, y)], callbacks=[lightgbm.early_stopping(2, verbose=False)])
    )


def frames(collector: Collector) -> None:
    """Pandas containers, and pipelines fitted on frames."""
    from sklearn import compose, ensemble, linear_model, pipeline, preprocessing

    frame = pd.DataFrame(
        {
            "number": np.arange(12.0),
            "whole": np.arange(12),
            "text": list("abc" * 4),
            "kind": pd.Categorical(list("xyz" * 4)),
            "flag": [True, False] * 6,
            "nullable": pd.array([1, None] * 6, dtype="Int64"),
            "when": pd.date_range("2020-01-01", periods=12),
        }
    )
    y = np.arange(12) % 2
    for value in (frame, *(frame[name] for name in frame.columns), frame.index, frame.columns, frame["kind"].cat.categories):
        collector.add("pandas", lambda value=value: value)
    for value in (
        frame.set_index("text"),
        frame.set_index("when"),
        frame.set_index(["text", "whole"]),
        frame["text"].astype(object),
    ):
        collector.add("pandas", lambda value=value: value)
    for dtype in ("category", "Int64", "Float64", "boolean", "string", "datetime64[ns]", "str"):
        collector.add(f"dtype {dtype}", lambda dtype=dtype: pd.api.types.pandas_dtype(dtype))
    prepare = compose.ColumnTransformer(
        [
            ("text", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["text", "kind"]),
            ("order", preprocessing.OrdinalEncoder(), compose.make_column_selector(dtype_include="category")),
            ("target", preprocessing.TargetEncoder(cv=2), ["text"]),
            ("scale", preprocessing.StandardScaler(), compose.make_column_selector(pattern="number")),
        ],
        remainder="drop",
    )
    for final in (linear_model.LogisticRegression(), ensemble.RandomForestClassifier(3)):
        for labels in (
            y,
            np.array(["no", "yes"])[y],
            pd.Series(["no", "yes"] * 6),
            pd.Series(["no", "yes"] * 6, dtype="category"),
        ):
            made = pipeline.Pipeline([("prepare", prepare), ("final", final)])
            collector.add("pipeline on a frame", lambda made=made, labels=labels: made.fit(frame, labels))
    as_frames = pipeline.make_pipeline(
        compose.make_column_transformer((preprocessing.StandardScaler(), ["number", "whole"])), linear_model.LogisticRegression()
    ).set_output(transform="pandas")
    collector.add("pandas output", lambda: as_frames.fit(frame, y))
    categorical = ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype", min_samples_leaf=1)
    collector.add("categories from types", lambda: categorical.fit(frame[["number", "kind"]], y))
    import lightgbm
    import xgboost

    collector.add(
        "xgboost categories",
        lambda: xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(frame[["number", "kind"]], y),
    )
    collector.add(
        "lightgbm categories",
        lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, min_child_samples=1).fit(frame[["number", "kind"]], y),
    )


def torch_files(collector: Collector) -> None:
    """State dicts of every storage type, parameters, and a checkpoint with its optimiser."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(3, 2)).sum().backward()
    optimizer.step()
    kinds = (
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    )
    values: list[Any] = [
        net.state_dict(),
        dict(net.named_parameters()),
        {"model_state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.5},
        {"shape": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32},
        *({"a": torch.zeros(2, dtype=getattr(torch, kind))} for kind in kinds),
    ]
    for value in values:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        with zipfile.ZipFile(buffer) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            collector.walk("torch", archive.read(name), storages=True)
        collector.dumped += 1


if __name__ == "__main__":
    sys.exit(main())
