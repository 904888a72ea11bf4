"""How close the exact search, the black box and ART's come to the nearest adversarial example of trees, and at what price.

Random forest, gradient boosting, XGBoost and LightGBM, with 100 trees each and otherwise as their libraries set them: on
scikit-learn's breast cancer data, and, where `--data` names its folder, on Adult as a table whose whole numbers and bounds are
kept and whose one-hot columns may not be changed. 64 held-out rows that the model gets right, linf.

1. Correctness: each example is put to the model's own `predict`; no certified radius is above the exact distance, and no exact
   distance above that of HopSkipJump with 1,000 queries, over more families, types and missing cells; Veritas confirms radii.
2. The exact search alone with each sample, in CPU seconds; its gap to the certified radius, which is found separately.
3. HopSkipJump with 1,000 queries a sample beside ART's at an equal cap, from the same starts, in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.label_only import PEERS, peer_python
from benchmarks.recording import Recorder
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.trees import TreeSearch
from holdfast.certification.trees import CONFIRMED, CONTRADICTED, certify_trees, confirm
from holdfast.core.domain import Ball, Domain
from holdfast.core.tabular import Table, Tabular
from holdfast.models.answers import Context
from holdfast.models.ensembles import TreeEnsemble, read_ensemble
from holdfast.models.sklearn import SklearnModel

CAP, SAMPLES, TREES = 1000, 64, 100
ART_SAMPLES = 12
REPEATS = 5
NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
WORDS = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "sex", "native-country")
COLUMNS = ("age", "workclass", "fnlwgt", *("education", "education-num"), *WORDS[2:7], *NUMBERS[2:], "native-country", "label")


@dataclass(frozen=True)
class Case:
    """A model with rows to attack.

    Attributes:
        x, y: (n, ...) rows in the domain's arrays that the model gets right, and their labels.
        starts, start_labels: rows that the black box may start from, with the model's labels.
        decode: from the domain's arrays to the model's inputs; None where they are those.
    """

    name: str
    model: SklearnModel
    ensemble: TreeEnsemble
    x: NDArray[Any]
    y: NDArray[np.int64]
    domain: Domain
    starts: NDArray[Any]
    start_labels: NDArray[np.int64]
    decode: Any = None

    def labels(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """The model's labels of the domain's arrays."""
        return self.model.labels(x if self.decode is None else self.decode(x))

    def run(self, attack: Any, rows: Any = slice(None), budget: int | None = None) -> Any:
        """The attack on some rows."""
        units = list(np.arange(len(self.x))[rows])
        return attack.run(
            self.model, self.x[rows], self.y[rows], self.domain, seed=0, units=units, budget=budget, decode=self.decode
        )

    def walk(self) -> HopSkipJump:
        """The black box."""
        return HopSkipJump(starts=self.starts, start_labels=self.start_labels)


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HOLDFAST_DATA"), help="the folder with adult-train.csv")
    parser.add_argument("--quick", action="store_true", help="8 samples, and no peer")
    options = parser.parse_args(argv)
    count = 8 if options.quick else SAMPLES
    record = Recorder("trees", ("numpy", "scikit-learn", "xgboost", "lightgbm", "dtai-veritas"))
    with threadpool_limits(1):
        cases = [breast_cancer(name, model, count) for name, model in classifiers().items()]
        if options.data:
            cases += [adult(name, model, Path(options.data) / "adult-train.csv", count) for name, model in classifiers().items()]
        sandwich(record, count)
        print(f"\n{'':28}{'median':>9}{'CPU s':>8}{'most':>7}{'proof':>7}{'gap<1e-4':>9}{'HSJ':>9}{'ratio':>7}{'CPU ms':>8}")
        walked = {case.name: measure(record, case) for case in cases}
        if not options.quick:
            for case in (cases[0], cases[2]):
                beside_art(record, case, walked[case.name], 25 if case is cases[0] else 15)
    return record.write()


def classifiers(trees: int = TREES) -> dict[str, Any]:
    """The four families, unfitted."""
    import lightgbm
    import xgboost
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    return {
        "random forest": RandomForestClassifier(trees, random_state=0),
        "gradient boosting": GradientBoostingClassifier(n_estimators=trees, random_state=0),
        "XGBoost": xgboost.XGBClassifier(n_estimators=trees, n_jobs=1),
        "LightGBM": lightgbm.LGBMClassifier(n_estimators=trees, verbose=-1, n_jobs=1),
    }


def cancer(dtype: Any = np.float64) -> tuple[NDArray[Any], ...]:
    """Scaled training and held-out rows."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.min(axis=0)) / np.ptp(x, axis=0)).astype(dtype)
    return tuple(train_test_split(x, y, random_state=0, test_size=0.4))


def breast_cancer(name: str, classifier: Any, count: int, dtype: Any = np.float64) -> Case:
    """The first held-out rows of breast cancer that the model gets right."""
    train, held, y_train, y_held = cancer(dtype)
    model = SklearnModel(classifier.fit(train, y_train), Context(sample=train[:2]))
    right = np.flatnonzero(model.labels(held) == y_held)[:count]
    ball = Ball(norm="linf", radius=np.inf, low=0.0, high=1.0)
    ensemble = read_ensemble(model, train)
    return Case(f"cancer, {name}", model, ensemble, held[right], y_held[right], ball, train, model.labels(train))


def adult(name: str, classifier: Any, path: Path, count: int) -> Case:
    """Adult as a table: numbers move in whole steps within their range, one-hot columns stay."""
    data = pd.read_csv(path, header=None, names=COLUMNS, skipinitialspace=True)
    y = (data["label"] == ">50K").to_numpy(dtype=np.int64)
    frame = pd.concat([data[list(NUMBERS)], pd.get_dummies(data[list(WORDS)], dtype=np.int64)], axis=1)
    frame.columns = [f"c{place}" if place >= len(NUMBERS) else name for place, name in enumerate(frame.columns)]
    order = np.random.default_rng(0).permutation(len(frame))
    train, held = order[:20_000], order[20_000:]
    model = SklearnModel(classifier.fit(frame.iloc[train], y[train]), Context(sample=frame[:2]))
    table = Table.describe(frame, immutable=list(frame.columns[len(NUMBERS) :]))
    held = held[model.labels(frame.iloc[held]) == y[held]][:count]
    owned = train[:500]
    x, starts = table.encode(frame.iloc[held]), table.encode(frame.iloc[owned])
    ensemble = read_ensemble(model, frame.iloc[train[:500]].to_numpy(dtype=np.float64))
    start_labels = model.labels(frame.iloc[owned])
    return Case(f"Adult, {name}", model, ensemble, x, y[held], Tabular(table=table), starts, start_labels, table.decode)


def sandwich(record: Recorder, count: int) -> None:
    """Certified, exact and black-box distances in order, over families, classes, types and missing cells."""
    from sklearn.base import clone
    from sklearn.datasets import load_digits, load_wine
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
    from sklearn.tree import DecisionTreeClassifier

    extra = {
        "histogram boosting": HistGradientBoostingClassifier(max_iter=TREES, random_state=0),
        "extra trees": ExtraTreesClassifier(20, random_state=0),
        "single tree": DecisionTreeClassifier(random_state=0),
    }
    cases = [breast_cancer(name, model, count) for name, model in extra.items()]
    cases += [breast_cancer(f"{name}, float32", model, count // 2, np.float32) for name, model in classifiers(50).items()]
    for title, load in (("wine", load_wine), ("digits", load_digits)):
        x, y = load(return_X_y=True)
        x = (x - x.min(axis=0)) / np.where(np.ptp(x, axis=0) > 0, np.ptp(x, axis=0), 1.0)
        for name, own in classifiers(10).items():
            cases.append(_split(f"{title}, {name}", own, x, y, count // 4))
    for name, own in (classifiers(50) | extra).items():
        if name not in ("gradient boosting", "extra trees"):
            cases.append(_missing(f"missing cells, {name}", clone(own), count // 2))
    rows = violations = failed = contradicted = confirmed = asked = 0
    for case in cases:
        exact = case.run(TreeSearch(ensemble=case.ensemble))
        walk = case.run(case.walk(), budget=CAP // 4)
        certified = certify_trees(case.ensemble, case.x, case.y, case.domain)
        found = np.where(exact.success, exact.distance, np.inf)
        if exact.success.any():
            failed += int((case.labels(exact.adversarial[exact.success]) == case.y[exact.success]).sum())
        failed += int((exact.correct & ~exact.success & np.isfinite(certified) & (certified < 0.5)).sum())
        walked, closed = np.where(walk.success, walk.distance, np.inf), np.isinf(found) | (found - certified < 1e-4)
        violations += int((certified > found).sum() + (certified > walked).sum() + (closed & (found > walked)).sum())
        rows += int(exact.correct.sum())
        if isinstance(case.domain, Ball):
            some = slice(0, 6)
            verdict = confirm(
                case.ensemble, case.x[some].astype(float), case.y[some], certified[some], low=0.0, high=1.0, seconds=0.3
            )
            contradicted += int((verdict == CONTRADICTED).sum())
            confirmed += int((verdict == CONFIRMED).sum())
            asked += len(verdict)
    print(f"{rows} samples of {len(cases)} models; of {asked} radii Veritas confirms {confirmed}, contradicts {contradicted}")
    record.at_least(
        "evasion-5", "samples on which certified, exact and black-box distances are compared", rows, 400 * count / SAMPLES
    )
    record.at_most("evasion-5", "violations of certified <= exact <= HopSkipJump", violations, 0)
    record.at_most("evasion-5", "examples that the model's own predict does not confirm, or that are missing", failed, 0)
    record.at_most("evasion-5", "certified radii that Veritas contradicts", contradicted, 0)


def _split(name: str, own: Any, x: NDArray[Any], y: NDArray[np.int64], count: int) -> Case:
    order = np.random.default_rng(0).permutation(len(x))
    train, held = order[: len(x) // 2], order[len(x) // 2 :]
    model = SklearnModel(own.fit(x[train], y[train]), Context(sample=x[:2]))
    held = held[model.labels(x[held]) == y[held]][:count]
    ball = Ball(norm="linf", radius=np.inf, low=0.0, high=1.0)
    return Case(name, model, read_ensemble(model, x[train]), x[held], y[held], ball, x[train], model.labels(x[train]))


def _missing(name: str, own: Any, count: int) -> Case:
    """Breast cancer as a table with a tenth of its cells missing."""
    train, held, y_train, y_held = cancer()
    frame = pd.DataFrame(np.concatenate([train, held]), columns=[f"f{place}" for place in range(train.shape[1])])
    frame = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.1)
    table, size = Table.describe(frame), len(train)
    model = SklearnModel(own.fit(frame[:size], y_train), Context(sample=frame[:2]))
    right = size + np.flatnonzero(model.labels(frame[size:]) == y_held)[:count]
    ensemble = read_ensemble(model, frame[:size].to_numpy())
    x, y, starts = table.encode(frame.iloc[right]), y_held[right - size], table.encode(frame[:size])
    return Case(name, model, ensemble, x, y, Tabular(table=table), starts, model.labels(frame[:size]), table.decode)


def measure(record: Recorder, case: Case) -> tuple[float, float]:
    """The exact search sample by sample and the black box on all; returns the latter's CPU seconds a sample and median."""
    attack, distance, seconds = TreeSearch(ensemble=case.ensemble), [], []
    for row in range(len(case.x)):
        started = time.process_time()
        outcome = case.run(attack, slice(row, row + 1))
        seconds.append(time.process_time() - started)
        distance.append(outcome.distance[0] if outcome.success[0] else np.inf)
    started = time.process_time()
    certified = certify_trees(case.ensemble, case.x, case.y, case.domain, predict=case.labels)
    proof = (time.process_time() - started) / len(case.x)
    exact = np.array(distance)
    with np.errstate(invalid="ignore"):
        closed = (np.isinf(exact) & np.isinf(certified)) | (exact - certified < 1e-4)
    share = float(np.mean(closed & (np.array(seconds) <= 1.0)))
    best, walk = np.inf, None
    for _ in range(1 if case.name.endswith("forest") else REPEATS):
        started = time.process_time()
        walk = case.run(case.walk(), budget=CAP)
        best = min(best, (time.process_time() - started) / len(case.x))
    assert walk is not None
    flips = np.isfinite(exact)
    far = np.where(walk.success, walk.distance, np.inf)[flips]
    ratio = float(np.median(far) / np.median(exact[flips]))
    print(
        f"{case.name:28}{np.median(exact[flips]):9.4f}{np.median(seconds):8.3f}{max(seconds):7.2f}{proof:7.3f}{share:9.3f}"
        f"{np.median(far):9.4f}{ratio:7.2f}{1000 * best:8.1f}",
        flush=True,
    )
    record.at_least("evasion-4", f"{case.name}: share of samples with an exact gap < 1e-4 within 1 CPU-second", share, 0.95)
    record.at_most("evasion-4", f"{case.name}: median linf of HopSkipJump with 1,000 queries over the exact one", ratio, 1.2)
    record.at_most("evasion-4", f"{case.name}: most queries of one sample", float(walk.cost.queries.max()), CAP)
    return best, float(np.median(far))


def beside_art(record: Recorder, case: Case, ours: tuple[float, float], bound: float) -> None:
    """ART's HopSkipJump at the same cap and from the same starts."""
    x, y = case.x[:ART_SAMPLES], case.y[:ART_SAMPLES]
    apart = np.abs(case.starts[None] - x[:, None]).max(axis=2) + 1e9 * (case.start_labels[None] == y[:, None])
    with tempfile.TemporaryDirectory() as folder:
        samples, model = Path(folder) / "samples.npz", Path(folder) / "model"
        np.savez(samples, x=x, y=y, starts=case.starts[apart.argmin(axis=1)])
        if case.model.framework == "xgboost":
            model = model.with_suffix(".json")
            case.model.estimator.save_model(model)
        else:
            model.write_bytes(pickle.dumps(case.model.estimator))
        command = [str(peer_python("art_trees")), str(PEERS / "art_tree_search.py"), str(model), str(samples), str(CAP)]
        limits = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=limits)
    if done.returncode:
        raise SystemExit(f"ART failed:\n{done.stderr[-2000:]}")
    art = json.loads(done.stdout.splitlines()[-1])
    seconds, median = art["seconds"] / len(x), float(np.median(art["distances"]))
    print(
        f"{case.name:28}ART {art['version']}: median {median:.4f}, {max(art['rows'])} queries, {1000 * seconds:.0f} CPU ms each"
    )
    record.at_least(
        "evasion-4", f"{case.name}: ART's CPU a sample over that of HopSkipJump here, equal cap", seconds / ours[0], bound
    )
    record.at_most("evasion-4", f"{case.name}: most queries credited to ART for one sample", float(max(art["rows"])), CAP)


if __name__ == "__main__":
    sys.exit(main())
