"""ART's HopSkipJump under linf on tree models, in an environment of its own; run by `benchmarks.trees`.

A counter outside ART sees every row. ART starts from the row it is given, runs one iteration after another, in the way it
documents (`resume`), and what it returns after the last iteration that ends within the cap counts.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from art.attacks.evasion import HopSkipJump
from art.estimators.classification import SklearnClassifier, XGBoostClassifier
from xgboost import XGBClassifier


class CapReached(Exception):
    """The sample has used its queries."""


def load(path: Path, features: int) -> Any:
    """ART's wrapper of the saved model."""
    if path.suffix == ".json":
        model = XGBClassifier()
        model.load_model(path)
        model.set_params(n_jobs=1)
        return XGBoostClassifier(model=model, nb_features=features, nb_classes=2, clip_values=(0.0, 1.0))
    return SklearnClassifier(model=pickle.loads(path.read_bytes()), clip_values=(0.0, 1.0))


def main(model_file: str, samples_file: str, cap: str) -> None:
    """Print, as JSON, what ART found."""
    data = np.load(samples_file)
    x, y, starts = data["x"], data["y"], data["starts"]
    classifier = load(Path(model_file), x.shape[1])
    plain, asked = classifier.predict, {"rows": 0, "calls": 0}

    def counted(rows: Any, *given: Any, **named: Any) -> Any:
        asked["rows"] += len(rows)
        asked["calls"] += 1
        if asked["rows"] > int(cap):
            raise CapReached
        return plain(rows, *given, **named)

    classifier.predict = counted
    np.random.seed(0)  # noqa: NPY002
    attack = HopSkipJump(classifier, norm=np.inf, verbose=False, batch_size=256, max_iter=1, max_eval=int(cap), init_eval=25)
    distances, rows = [], []
    asked["calls"] = 0
    started = time.process_time()
    for row, label, start in zip(x, y, starts, strict=True):
        asked["rows"], found, used = 0, start[None], 0
        with suppress(CapReached):
            found = attack.generate(row[None], x_adv_init=start[None])
            while np.abs(found - row).max() > 0:
                used = asked["rows"]
                found = attack.generate(row[None], x_adv_init=found, resume=True)
        evades = int(plain(found).argmax()) != int(label)
        distances.append(float(np.abs(found - row).max()) if evades else float("inf"))
        rows.append(used)
    seconds = time.process_time() - started
    found = {"distances": distances, "rows": rows, "calls": asked["calls"], "seconds": seconds}
    print(json.dumps({"version": version("adversarial-robustness-toolbox"), **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
