"""C-SMALL: train again, as regularised as the training rows allow without losing utility.

1. The recipe's regularisers are found: leaf size of trees, early stopping of boosting, the penalty of linear models and
   networks, or the `weight_decay` that a training function accepts.
2. Strengths from the present one upwards are tried by cross-validation on the training rows; holdout rows are never looked
   at, so that what is measured on them afterwards is not the winner's curse.
3. The strongest within a tolerance of the best, whose decisions still reach the mean recall of today's within the same
   tolerance, so that no model wins that answers one class to all. It is trained on all training rows, and becomes the
   recipe too, so that shadow models are trained as the new model was.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError, NotApplicable
from holdfast.core.oracle import Access
from holdfast.core.progress import Progress, Silent
from holdfast.core.seeds import derive, generator
from holdfast.core.target import Dataset, Model, Recipe, Target
from holdfast.models.answers import Context
from holdfast.models.recipe import CloneRecipe, FunctionRecipe
from holdfast.models.sklearn import SklearnModel

TOLERANCE = 0.005
"""How much cross-validated utility (AUC, or accuracy without scores) may be given up for a stronger regulariser."""
FOLDS = 3
MOST_ROWS = 20_000
"""Training rows that the strengths are compared on; the final model is trained on all."""


@dataclass(frozen=True, kw_only=True)
class Regulariser:
    """A setting that smooths a model.

    Attributes:
        name: of the parameter, without its path in a pipeline.
        factors: strengths as multiples of the present value, weakest first; None where `values` are absolute.
        values: absolute strengths, weakest first.
        default: what None or 0 counts as where `factors` multiply it.
        share: the largest absolute strength, as a share of the training rows per class.
    """

    name: str
    factors: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    default: float = 1.0
    share: float = 0.25


LEAVES = (2, 5, 10, 20, 50, 100, 200)
SHRINKING = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
GROWING = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
REGULARISERS = (
    Regulariser(name="min_samples_leaf", values=LEAVES),
    Regulariser(name="min_child_samples", values=LEAVES),
    Regulariser(name="min_child_weight", values=LEAVES, share=0.05),
    Regulariser(name="n_neighbors", values=LEAVES),
    Regulariser(name="C", factors=SHRINKING),
    Regulariser(name="alpha", factors=GROWING, default=1e-4),
    Regulariser(name="weight_decay", values=(1e-4, 1e-3, 1e-2, 1e-1), share=np.inf),
)
"""In the order in which they are preferred where an estimator has several."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One strength with its mean cross-validated utility, the spread over folds, and the mean recall of its decisions.

    The strength None is the recipe as it was.
    """

    strength: float | None
    utility: float
    spread: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen: the parameters with their new values, by which measure, and everything that was tried."""

    settings: Mapping[str, Any]
    strength: float | None
    measure: str
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """The new model, the recipe that trains its like, and how its strength was chosen."""

    model: Model
    recipe: Recipe
    choice: Choice


@dataclass(frozen=True, kw_only=True)
class RegularisedRetraining:
    """The control.

    Attributes:
        strength: of the regulariser, such as the leaf size; None chooses it by cross-validation.
        tolerance: utility that may be given up, see `TOLERANCE`.
    """

    strength: float | None = None
    tolerance: float = TOLERANCE
    id: str = field(default="C-SMALL", init=False)
    mitigates: tuple[str, ...] = field(default=("T-PRI-01", "T-PRI-05"), init=False)

    def apply(self, target: Target, seed: int) -> Target:
        """The target with the retrained model, served as before."""
        done = retrain(target, seed, strength=self.strength, tolerance=self.tolerance)
        hardened = target.bare is not None and target.bare is not target.model
        served = target.as_served(done.model) if hardened else done.model
        digests = {**target.digests, "recipe": done.recipe.digest, "model": f"{done.recipe.digest}:{seed}"}
        return replace(
            target,
            model=served,
            bare=done.model if hardened else None,
            recipe=done.recipe,
            model_path=None,
            digests=digests,
        )


def retrain(
    target: Target,
    seed: int,
    *,
    strength: float | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Retrained:
    """Train the target's model again with a stronger regulariser.

    Args:
        target: with training rows and a recipe.
        seed: of the folds and the training.
        strength: of the regulariser; None chooses the strongest within `tolerance` of the best.
        tolerance: cross-validated utility that may be given up.
        progress: told about the trainings.

    Raises:
        Unmeasured: training rows or recipe were not given.
        NotApplicable: the recipe has no regulariser that this control knows.
        ConfigurationError: the strength makes no sense.
    """
    train = target.require_train()
    base, settings_of, ladder = _plan(target, train)
    if strength is not None:
        if not strength > 0:
            raise ConfigurationError(f"strength {strength} is not positive")
        choice = Choice(settings=settings_of(strength), strength=strength, measure="given")
        recipe = base(strength)
        return Retrained(model=recipe.fit(train, derive(seed, "retrain")), recipe=recipe, choice=choice)
    watcher = progress or Silent()
    rows = _at_most(train, MOST_ROWS, seed)
    folds = _folds(rows, seed)
    complete = all(len(np.unique(rows.y[part])) == len(rows.classes) for part in folds)
    strengths: list[float | None] = [None, *ladder]
    tried: list[Tried] = []
    measure = "accuracy"
    for step, candidate in enumerate(strengths):
        scores, recalls = [], []
        for fold, part in enumerate(folds):
            model = base(candidate).fit(rows.take(~part), derive(seed, "fold", fold))
            measure, score = utility(model, rows.take(part), ranked=complete)
            scores.append(score)
            recalls.append(mean_recall(model.labels(rows.take(part).x), rows.y[part]))
            watcher.advance("cross-validation", step * len(folds) + fold + 1, len(strengths) * len(folds))
        spread, recall = float(np.std(scores)), float(np.mean(recalls))
        tried.append(Tried(strength=candidate, utility=float(np.mean(scores)), spread=spread, recall=recall))
        best = max(one.utility for one in tried)
        if len(tried) > 2 and max(tried[-1].utility, tried[-2].utility) < best - 4 * tolerance:
            break
    kept = [one for one in tried if one.utility >= best - tolerance and one.recall >= tried[0].recall - tolerance]
    chosen = kept[-1] if kept else tried[0]
    recipe = base(chosen.strength)
    choice = Choice(settings=settings_of(chosen.strength), strength=chosen.strength, measure=measure, tried=tuple(tried))
    return Retrained(model=recipe.fit(train, derive(seed, "retrain")), recipe=recipe, choice=choice)


def utility(model: Model, data: Dataset, ranked: bool) -> tuple[str, float]:
    """The measure's name and value: AUC, one against the rest and averaged, where wanted and possible; else accuracy."""
    from sklearn.metrics import roc_auc_score

    if ranked and model.access >= Access.SCORES and len(data.classes) > 1:
        scores = np.asarray(model.scores(data.x), dtype=float)
        if scores.shape[1] == 2:
            return "AUC", float(roc_auc_score(data.y, scores[:, 1] - scores[:, 0]))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return "AUC", float(roc_auc_score(data.y, shares / shares.sum(axis=1, keepdims=True), multi_class="ovr"))
    return "accuracy", float(np.mean(model.labels(data.x) == data.y))


def mean_recall(predicted: NDArray[np.int64], y: NDArray[np.int64]) -> float:
    """The recall of each class that occurs, averaged: what a constant answer has as 1 / classes."""
    return float(np.mean([np.mean(predicted[y == label] == label) for label in np.unique(y)]))


Builder = Callable[[float | None], Recipe]
Settings = Callable[[float | None], Mapping[str, Any]]


def _plan(target: Target, train: Dataset) -> tuple[Builder, Settings, Sequence[float]]:
    """How to build the recipe of a strength, which settings that means, and the strengths to try."""
    recipe, model = target.require_recipe(), target.weights
    if isinstance(recipe, FunctionRecipe) and recipe.accepts("weight_decay"):
        regulariser = next(one for one in REGULARISERS if one.name == "weight_decay")

        def decayed(strength: float | None) -> Recipe:
            return recipe if strength is None else recipe.with_option("weight_decay", strength)

        return decayed, lambda strength: {} if strength is None else {"weight_decay": strength}, regulariser.values
    if not isinstance(model, SklearnModel):
        raise NotApplicable(
            f"a {model.framework} model has no regulariser that this control knows",
            hint="Give the training function of model.recipe a keyword argument weight_decay.",
        )
    clone = recipe if isinstance(recipe, CloneRecipe) else CloneRecipe(model, Context(sample=train.x[:2]), recipe.digest)
    parameters = clone.estimator.get_params(deep=True)
    found = next((one for one in REGULARISERS if _places(parameters, one.name)), None)
    if found is None:
        raise NotApplicable(
            f"a {type(model.estimator).__name__} has no regulariser that this control knows",
            hint=f"Known are {', '.join(one.name for one in REGULARISERS)}.",
        )
    places = _places(parameters, found.name)
    stopping = _early_stopping(parameters)

    def settings_of(strength: float | None) -> Mapping[str, Any]:
        if strength is None:
            return {}
        return {**{place: _typed(parameters[place], strength) for place in places}, **stopping}

    def cloned(strength: float | None) -> Recipe:
        fresh = copy.copy(clone)
        fresh.estimator = copy.deepcopy(clone.estimator).set_params(**settings_of(strength))
        if strength is not None:
            changed = f"{clone.digest}:{sorted(settings_of(strength).items())}"
            fresh.digest = hashlib.sha256(changed.encode()).hexdigest()
        return fresh

    return cloned, settings_of, _ladder(found, parameters[places[0]], train)


def _places(parameters: Mapping[str, Any], name: str) -> list[str]:
    """Where in the (possibly nested) estimator the parameter stands; strings such as `alpha="auto"` are left alone."""
    return [
        place
        for place in sorted(parameters)
        if (place == name or place.endswith(f"__{name}"))
        and (
            parameters[place] is None or (isinstance(parameters[place], (int, float)) and not isinstance(parameters[place], bool))
        )
    ]


def _early_stopping(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Early stopping of boosting and networks, where the estimator has it built in."""
    settings: dict[str, Any] = {}
    for place, value in parameters.items():
        leaf = place.rsplit("__", 1)[-1]
        prefix = place.removesuffix(leaf)
        if leaf == "early_stopping" and isinstance(value, (bool, str)) and f"{prefix}n_iter_no_change" in parameters:
            settings[place] = True
        elif leaf == "n_iter_no_change" and value is None and f"{prefix}validation_fraction" in parameters:
            settings[place] = 10
    return settings


def _ladder(regulariser: Regulariser, present: Any, train: Dataset) -> list[float]:
    """Strengths beyond the present one."""
    if regulariser.factors:
        return [(present or regulariser.default) * factor for factor in regulariser.factors]
    current = 0.0 if present is None else float(present)
    if 0 < current < 1 and regulariser.name == "min_samples_leaf":
        current *= len(train)
    largest = regulariser.share * len(train) / max(len(train.classes), 1)
    return [value for value in regulariser.values if current < value <= largest]


def _typed(present: Any, strength: float) -> Any:
    """In the present value's type, so that a leaf size stays a count."""
    return int(strength) if (present is None or isinstance(present, int)) and float(strength).is_integer() else float(strength)


def _at_most(data: Dataset, most: int, seed: int) -> Dataset:
    if len(data) <= most:
        return data
    return data.take(np.sort(generator(seed, "cross-validation rows").permutation(len(data))[:most]))


def _folds(data: Dataset, seed: int) -> list[NDArray[np.bool_]]:
    """Masks of the rows left out in turn: stratified by class, whole clusters at a time."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units = len(data) if data.clusters is None else len(np.unique(data.clusters))
    if units < FOLDS or np.bincount(data.y).max(initial=0) < FOLDS:
        raise NotApplicable(f"{len(data)} training rows are too few for {FOLDS} folds", hint="Give the strength.")
    state = derive(seed, "cross-validation folds") % 2**31
    splitter: Any = StratifiedKFold if data.clusters is None else StratifiedGroupKFold
    folds = []
    for _, left_out in splitter(FOLDS, shuffle=True, random_state=state).split(np.zeros(len(data)), data.y, data.clusters):
        mask = np.zeros(len(data), dtype=bool)
        mask[left_out] = True
        folds.append(mask)
    return folds
