"""C-ADVTRAIN for trees: train again so that the nearest adversarial examples lie further away.

1. The model is trained again on copies of the training rows moved at random within a radius, so that thresholds keep clear of
   the rows, and on the exact nearest counterexamples of the model so trained, with the labels of the rows they came from;
   optionally with features that may only raise, or only lower, the score.
2. Radii, and depths where the recipe has a depth to limit, are compared by cross-validation on the training rows: the one wins
   that has the largest exact median distance among those whose accuracy is within a tolerance of the present model's.
3. It is trained on all training rows. The attack of the measurement afterwards is the exact search on the new model itself, so
   nothing is left for an attacker who knows the defence.

Sources: Kantchelian, Tygar and Joseph (2016), section 5.3, for retraining on exact counterexamples; Bishop (1995), "Training
with noise is equivalent to Tikhonov regularization".
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError, NotApplicable
from holdfast.core.progress import Progress, Silent
from holdfast.core.seeds import derive, generator
from holdfast.core.target import Dataset, Model, Target
from holdfast.models.answers import Context
from holdfast.models.ensembles import Floats, read_ensemble
from holdfast.models.recipe import CloneRecipe
from holdfast.models.sklearn import SklearnModel
from holdfast.models.tree_search import Reach, nearest

TOLERANCE = 0.015
"""Cross-validated accuracy that may be given up."""
RADII = (0.6, 1.2)
"""Radii that are tried, in standard deviations of each feature."""
DEPTHS = (None, 3, 2, 1)
"""Depths that are tried; None is the recipe's own."""
COPIES = 6
COUNTERED_ROWS = 64
COMPARED_ROWS = 36
EFFORT = 8_000_000
FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class RobustTrial:
    """One way to train, with its cross-validated accuracy and the exact median distance, in standard deviations."""

    radius: float
    depth: int | None
    accuracy: float
    distance: float


@dataclass(frozen=True, kw_only=True)
class RobustModel:
    """The new model, the recipe of its like, and all that was tried; the first trial is the model as it was."""

    model: Model
    recipe: RobustRecipe
    chosen: RobustTrial
    tried: tuple[RobustTrial, ...]


@dataclass(frozen=True, kw_only=True)
class RobustTrees:
    """The control.

    Attributes:
        radius: of the moved copies, in standard deviations; None chooses radius and depth by cross-validation.
        tolerance: accuracy that may be given up.
        monotone: features that may only raise (1) or lower (-1) the score of the last class, by name or place.
    """

    radius: float | None = None
    tolerance: float = TOLERANCE
    monotone: Mapping[str, int] = field(default_factory=dict)
    id: str = field(default="C-ADVTRAIN", init=False)
    mitigates: tuple[str, ...] = field(default=("T-EVA-01", "T-EVA-02", "T-EVA-03"), init=False)

    def apply(self, target: Target, seed: int) -> Target:
        """The target with the retrained model, served as before."""
        done = harden_trees(target, seed, radius=self.radius, tolerance=self.tolerance, monotone=self.monotone)
        hardened = target.bare is not None and target.bare is not target.model
        served = target.as_served(done.model) if hardened else done.model
        digests = {**target.digests, "recipe": done.recipe.digest, "model": f"{done.recipe.digest}:{seed}"}
        bare = done.model if hardened else None
        return replace(target, model=served, bare=bare, recipe=done.recipe, model_path=None, digests=digests)


class RobustRecipe:
    """Trains a clone of a tree model on moved copies of the rows and on exact counterexamples.

    Args:
        base: refits the model as it was.
        radius: of the copies, in standard deviations of each feature; 0 trains as before.
        settings: parameters of the estimator that differ from the model's.
    """

    def __init__(self, base: CloneRecipe, radius: float, settings: Mapping[str, Any]) -> None:
        self._radius = radius
        self._clone = copy.copy(base)
        self._clone.estimator = copy.deepcopy(base.estimator).set_params(**settings)
        described = f"robust:{base.digest}:{radius}:{sorted(settings.items(), key=str)}"
        self.digest = hashlib.sha256(described.encode()).hexdigest()

    def fit(self, data: Dataset, seed: int) -> Model:
        """Train a new model.

        Raises:
            InvalidModel: training failed, or the trees cannot be read.
        """
        if not self._radius:
            return self._clone.fit(data, seed)
        rows, low, high, scale = numbers_of(data)
        random = generator(seed, "moved copies")
        moved = np.tile(rows, (COPIES, 1))
        moved = np.clip(moved + self._radius * scale * random.uniform(-1, 1, moved.shape), low, high)
        larger = _joined(data, moved, np.tile(data.y, COPIES))
        first = self._clone.fit(larger, seed)
        some = np.sort(random.permutation(len(rows))[:COUNTERED_ROWS])
        weight = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 1.0)
        reach = Reach(low=np.minimum(low, rows[some]), high=np.maximum(high, rows[some]), weight=weight)
        found = nearest(read_ensemble(first, rows), rows[some], data.y[some], reach, effort=EFFORT // 20, within=self._radius / 2)
        met = np.flatnonzero(np.isfinite(found.distance))
        return self._clone.fit(_joined(larger, found.point[met], data.y[some[met]]), seed)


def harden_trees(
    target: Target,
    seed: int,
    *,
    radius: float | None = None,
    tolerance: float = TOLERANCE,
    monotone: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> RobustModel:
    """Train the target's trees again, further from their own adversarial examples.

    Args:
        target: with training rows of numbers and a scikit-learn, XGBoost or LightGBM classifier of trees.
        seed: of folds, copies and training.
        radius: of the copies; None chooses.
        tolerance: cross-validated accuracy that may be given up.
        monotone: signs by feature.
        progress: told about the trainings.

    Raises:
        Unmeasured: no training rows were given.
        NotApplicable: the model cannot be trained again, or its columns are no numbers.
        InvalidModel: it is no ensemble of trees that can be read.
        ConfigurationError: radius, a feature or a sign makes no sense.
    """
    train, model = target.require_train(), target.weights
    if not isinstance(model, SklearnModel):
        raise NotApplicable(f"a {model.framework} model cannot be cloned and trained again as trees")
    if radius is not None and not radius > 0:
        raise ConfigurationError(f"radius {radius} is not positive")
    rows, *_ = numbers_of(train)
    read_ensemble(model, rows)
    base = CloneRecipe(model, Context(sample=train.x[:2]), target.digests.get("model", "trees"))
    signs = _monotone(base, train, monotone or {})
    depths = DEPTHS if base.estimator.get_params().get("max_depth", "none") != "none" else DEPTHS[:1]
    ways = [(0.0, None), *((r, d) for r in ((radius,) if radius is not None else RADII) for d in depths)]
    watcher, tried = progress or Silent(), []
    for number, (size, depth) in enumerate(ways):
        recipe = _recipe(base, size, depth, signs if number else {})
        tried.append(_trial(recipe, train, seed, size, depth))
        watcher.advance("cross-validation", number + 1, len(ways))
    kept = [one for one in tried if one.accuracy >= tried[0].accuracy - tolerance]
    chosen = max(kept, key=lambda one: one.distance)
    recipe = _recipe(base, chosen.radius, chosen.depth, signs if chosen is not tried[0] else {})
    return RobustModel(model=recipe.fit(train, derive(seed, "robust trees")), recipe=recipe, chosen=chosen, tried=tuple(tried))


def numbers_of(data: Dataset) -> tuple[Floats, Floats, Floats, Floats]:
    """(n, features) rows, and the features' least and largest values and standard deviations.

    An array's features have one scale, their mean standard deviation, as distances in arrays do not weigh features.

    Raises:
        NotApplicable: a column holds no numbers, or a cell is missing.
    """
    frame = data.x
    if isinstance(frame, pd.DataFrame) and not all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes):
        raise NotApplicable("robust trees need columns of numbers", hint="Encode words before the trees, or use another control.")
    rows = np.asarray(frame, dtype=np.float64).reshape(len(frame), -1)
    if not np.isfinite(rows).all():
        raise NotApplicable("robust trees need rows without missing cells")
    scale = rows.std(axis=0)
    if not isinstance(frame, pd.DataFrame):
        scale = np.full(rows.shape[1], scale.mean())
    return rows, rows.min(axis=0), rows.max(axis=0), scale


def _trial(recipe: RobustRecipe, train: Dataset, seed: int, radius: float, depth: int | None) -> RobustTrial:
    from sklearn.model_selection import StratifiedKFold

    if np.bincount(train.y).max(initial=0) < FOLDS:
        raise NotApplicable(f"{len(train)} training rows are too few for {FOLDS} folds")
    right, distances = [], []
    _, low, high, scale = numbers_of(train)
    weight = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 1.0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=derive(seed, "robust folds") % 2**31)
    for number, (kept, left) in enumerate(folds.split(np.zeros(len(train)), train.y)):
        model = recipe.fit(train.take(kept), derive(seed, "robust fold", number))
        part = train.take(left)
        hit = model.labels(part.x) == part.y
        right.append(hit)
        rows = numbers_of(part)[0][hit][: COMPARED_ROWS // FOLDS]
        sides = (np.broadcast_to(side, rows.shape) for side in (low, high))
        reach = Reach(low=next(sides), high=next(sides), weight=weight)
        found = nearest(read_ensemble(model, rows), rows, part.y[hit][: COMPARED_ROWS // FOLDS], reach, effort=EFFORT)
        distances.append(found.proven)
    median = float(np.median(np.concatenate(distances)))
    return RobustTrial(radius=radius, depth=depth, accuracy=float(np.mean(np.concatenate(right))), distance=median)


def _recipe(base: CloneRecipe, radius: float, depth: int | None, signs: Mapping[str, Any]) -> RobustRecipe:
    return RobustRecipe(base, radius, {**({} if depth is None else {"max_depth": depth}), **signs})


def _joined(data: Dataset, rows: Floats, y: NDArray[np.int64]) -> Dataset:
    """The data with further rows, in the form and the types of its own; whole numbers are rounded."""
    if isinstance(data.x, pd.DataFrame):
        columns = {
            name: (np.rint(rows[:, place]) if pd.api.types.is_integer_dtype(kind) else rows[:, place]).astype(kind)
            for place, (name, kind) in enumerate(data.x.dtypes.items())
        }
        x: Any = pd.concat([data.x, pd.DataFrame(columns)], ignore_index=True)
    else:
        x = np.concatenate([data.x, rows.reshape(len(rows), *data.x.shape[1:]).astype(data.x.dtype)])
    ids = np.concatenate([data.ids, np.array([f"moved-{number}" for number in range(len(rows))], dtype=np.str_)])
    return replace(data, x=x, y=np.concatenate([data.y, y]), ids=ids, groups=None, clusters=None)


def _monotone(base: CloneRecipe, train: Dataset, wanted: Mapping[str, int]) -> dict[str, Any]:
    """The estimator's own parameter for monotone features."""
    if not wanted:
        return {}
    names = [str(name) for name in (train.x.columns if train.is_table else range(np.asarray(train.x[:1]).size))]
    for name, sign in wanted.items():
        if name not in names or sign not in (-1, 1):
            raise ConfigurationError(f"monotone: {name!r} is no feature with the sign 1 or -1")
    signs = [int(wanted.get(name, 0)) for name in names]
    parameters = base.estimator.get_params()
    for parameter in ("monotonic_cst", "monotone_constraints"):
        if parameter in parameters or type(base.estimator).__module__.startswith("lightgbm"):
            return {parameter if parameter in parameters else "monotone_constraints": tuple(signs)}
    raise NotApplicable(f"a {type(base.estimator).__name__} takes no monotone features")
