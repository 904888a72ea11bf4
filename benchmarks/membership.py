"""How strong the membership attack is, and whether a larger leaf really takes the leak away.

UCI Adult, 6,000 rows in and 6,000 out, drawn at random; a random forest that memorises (leaf 1) and three regularised ones,
all scikit-learn pipelines on the raw columns. The attack is the probe's own: its gate, signals, shadow models and judgement. The
claim is held at leaf 70. Leaf 50 was tried first and fell short at seed 11, where the difficulty-calibrated attack still told
some members; it stays in the table, as does leaf 100, which costs more than it buys. Seed 13 was drawn after leaf 70 was
chosen. Seed 17 was drawn after the interval of `identify` took its present form, whose coverage `benchmarks/intervals.py`
measures; the attack's gate refused that split, as it refuses up to one random split in forty, and seed 19 came next.
CPU time is that of this process and its children, shadow training included; every check takes the worst seed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.recording import Recorder
from holdfast.attacks.privacy.identification import Identification, area, identify, strict
from holdfast.attacks.privacy.membership import Shadows, calibrated, likelihood_ratio, train_shadows
from holdfast.attacks.privacy.separability import separability
from holdfast.attacks.privacy.signals import censor, signals
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import generator
from holdfast.core.target import Dataset
from holdfast.models.answers import Context
from holdfast.models.sklearn import SklearnModel

COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race", "sex"),
    *("capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)
CLASSES = ("<=50K", ">50K")
SIDE, SHADOWS, TREES = 6000, 12, 100
LEAVES = (1, 50, 70, 100)
CLAIMED_LEAF = 70
SEEDS = (7, 11, 13, 19)


@dataclass(frozen=True)
class Result:
    """What the attacks found on one forest."""

    strict: float
    threshold: Identification
    calibrated: Identification
    ratio: Identification
    auc_attack: float
    accuracy: tuple[float, float]
    utility: float
    seconds: float
    control: float


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HOLDFAST_DATA"))
    parser.add_argument("--quick", action="store_true", help="one seed")
    options = parser.parse_args(argv)
    if options.data is None:
        print("--data DIR with adult-train.csv is needed", file=sys.stderr)
        return 2
    frame = read_adult(Path(options.data) / "adult-train.csv")
    seeds = SEEDS[:1] if options.quick else SEEDS
    print("seed leaf  strict  tie-safe  calibrated  LiRA [95 % CI]               FPR   AUC     null    test AUC  accuracy  CPU")
    found: dict[int, list[Result]] = {leaf: [] for leaf in LEAVES}
    for seed in seeds:
        for leaf in LEAVES:
            found[leaf].append(measure(frame, leaf, seed))
            show(seed, leaf, found[leaf][-1])
    record = Recorder("membership", ("numpy", "scipy", "scikit-learn", "pandas"))
    before = found[1]
    record.at_least("loop-4", "overfitted forest: TPR at 1 % FPR, LiRA", min(r.ratio.true_positive.value for r in before), 0.12)
    record.at_most(
        "loop-4", "overfitted forest: lower bound of the achieved FPR", max(r.ratio.false_positive.low for r in before), 0.01
    )
    record.at_most("loop-4", "overfitted forest: CPU seconds, shadow training included", max(r.seconds for r in before), 30)
    record.at_most("loop-4", "a model of other rows (null): TPR at 1 % FPR", max(r.control for r in before), 0.02)
    after = found[CLAIMED_LEAF]
    drop = max(first.utility - second.utility for first, second in zip(before, after, strict=True))
    record.at_most(
        "loop-4",
        f"leaf {CLAIMED_LEAF}: upper bound of TPR at 1 % FPR, LiRA",
        max(r.ratio.true_positive.high for r in after),
        0.02,
    )
    record.at_most(
        "loop-4", f"leaf {CLAIMED_LEAF}: the same, worst attack of the family", max(worst_upper(r) for r in after), 0.02
    )
    record.at_most("loop-4", f"leaf {CLAIMED_LEAF}: loss of test AUC", drop, 0.01)
    return record.write()


def read_adult(path: Path) -> Dataset:
    """The rows as one data set, raw columns kept."""
    frame = pd.read_csv(path, header=None, names=COLUMNS, skipinitialspace=True)
    labels = (frame["income"].str.rstrip(".") == CLASSES[1]).to_numpy().astype(np.int64)
    ids = np.arange(len(frame)).astype(str)
    return Dataset(name="adult", x=frame.drop(columns="income"), y=labels, classes=CLASSES, ids=ids)


def measure(data: Dataset, leaf: int, seed: int) -> Result:
    """Train the target, attack it as the probe does, and attack a model of other rows in the same way as a control."""
    from sklearn.metrics import roc_auc_score

    order = generator(seed, "adult").permutation(len(data))
    pool, strangers = data.take(order[: 2 * SIDE]), data.take(order[2 * SIDE : 3 * SIDE])
    train, holdout = pool.take(np.arange(SIDE)), pool.take(np.arange(SIDE, 2 * SIDE))
    target, unrelated = fit(leaf)(train, seed), fit(leaf)(strangers, seed)
    started = cpu_seconds()
    gate = separability(train, holdout, seed=seed)
    if gate.confounded:
        raise SystemExit("the split is confounded; nothing can be said")
    chosen = np.concatenate([gate.train, SIDE + gate.holdout])
    member = chosen < SIDE
    records = pool.take(chosen)
    shadows = train_shadows(fit(leaf), pool, chosen, SHADOWS, access=Access.SCORES, seed=seed)
    observed = signals(Oracle(target, Access.SCORES, len(records), 1), records)
    score, resolved = resolve(observed, shadows)
    ratio = likelihood_ratio(score, resolved)
    named = identify(ratio[member], ratio[~member], 0.01, seed=seed)
    seconds = cpu_seconds() - started
    eased = calibrated(score, resolved)
    null = likelihood_ratio(*resolve(signals(Oracle(unrelated, Access.SCORES, len(records), 1), records), shadows))
    inside, outside = accuracy_of(target, train), np.asarray(target.scores(holdout.x))
    return Result(
        strict=strict(observed[member], observed[~member], 0.01).value,
        threshold=identify(score[member], score[~member], 0.01, seed=seed),
        calibrated=identify(eased[member], eased[~member], 0.01, seed=seed),
        ratio=named,
        auc_attack=area(ratio[member], ratio[~member]).value,
        accuracy=(inside, float((outside.argmax(axis=1) == holdout.y).mean())),
        utility=float(roc_auc_score(holdout.y, outside[:, 1] - outside[:, 0])),
        seconds=seconds,
        control=identify(null[member], null[~member], 0.01, seed=seed).true_positive.value,
    )


def fit(leaf: int) -> Any:
    """The recipe: from rows and seed to a fitted model."""

    def train(data: Dataset, seed: int) -> SklearnModel:
        from sklearn.compose import make_column_selector, make_column_transformer
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        words = make_column_selector(dtype_include=["object", "string"])
        encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), remainder="passthrough")
        forest = RandomForestClassifier(TREES, min_samples_leaf=leaf, random_state=seed % 2**32, n_jobs=1)
        fitted = make_pipeline(encode, forest).fit(data.x, data.y)
        return SklearnModel(fitted, Context(sample=data.x[:2], classes=("0", "1"), fixed=True))

    return train


def resolve(observed: np.ndarray[Any, Any], shadows: Shadows) -> tuple[np.ndarray[Any, Any], Shadows]:
    """Signals with their unresolved extremes pulled in together, as the probe does."""
    pulled, _ = censor(np.vstack([observed, shadows.signals]))
    return pulled[0], Shadows(signals=pulled[1:], member=shadows.member)


def accuracy_of(model: SklearnModel, data: Dataset) -> float:
    """Accuracy on the rows."""
    return float((model.labels(data.x) == data.y).mean())


def worst_upper(result: Result) -> float:
    """The largest upper bound over the family, each at 95 %."""
    return max(seen.true_positive.high for seen in (result.threshold, result.calibrated, result.ratio))


def cpu_seconds() -> float:
    """Of this process and its ended children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def show(seed: int, leaf: int, found: Result) -> None:
    """One line of the table."""
    hit = found.ratio.true_positive
    print(
        f"{seed:4} {leaf:4}  {found.strict:6.4f}  {found.threshold.true_positive.value:8.4f}  "
        f"{found.calibrated.true_positive.value:10.4f}  {hit.value:.4f} [{hit.low:.4f}, {hit.high:.4f}]  "
        f"{found.ratio.false_positive.value:14.4f}  {found.auc_attack:10.4f}  {found.control:.4f}  {found.utility:8.4f}  "
        f"{found.accuracy[0]:.3f} / {found.accuracy[1]:.3f}   {found.seconds:5.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
