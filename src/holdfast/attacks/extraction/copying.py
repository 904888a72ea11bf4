"""Copying a model: train a substitute on its answers to inputs of one's own, and see how often the two agree.

The attacker has unlabelled inputs like those of users. He asks the model for answers to N of them, learns a substitute
from scores (every class weighted by its answered probability) or from labels, and keeps whichever of two learners, a
boosted ensemble or a small neural network, agrees better with answers he set aside.

Sources: Tramèr et al. (2016), "Stealing Machine Learning Models via Prediction APIs"; Orekondy et al. (2019), "Knockoff
Nets", for learning from the answered distribution.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from holdfast.attacks.features import Booster, Encoder
from holdfast.core.errors import Inconclusive
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import derive, generator

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Learner = Literal["boosting", "network"]
Mode = Literal["scores", "labels"]
LEARNERS: tuple[Learner, ...] = ("boosting", "network")
NEGLIGIBLE = 0.005
"""Answered probabilities below this are left out when learning from scores."""
LEAST_LOG = -12.0
"""Log-probabilities below this are cut when the network learns them, so that a few zeros don't decide the fit."""
FEWEST_TO_CHOOSE = 40


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the attacker was told.

    Attributes:
        features: (n, d) the inputs as the attacker's learners take them.
        labels: (n,) answered classes.
        logs: (n, k) answered log-probabilities; None when the service answers labels.
        categorical: which features are codes.
    """

    features: Floats
    labels: Labels
    logs: Floats | None
    categorical: NDArray[np.bool_] | None

    def take(self, rows: NDArray[np.int64]) -> Answers:
        """The chosen rows."""
        logs = None if self.logs is None else self.logs[rows]
        return Answers(features=self.features[rows], labels=self.labels[rows], logs=logs, categorical=self.categorical)


def ask(oracle: Oracle, x: Any, encoder: Encoder) -> Answers:
    """Query the service for each input, all on the attacker's one account: sample 0 of the oracle."""
    owner = np.zeros(len(x), dtype=np.int64)
    if oracle.access < Access.SCORES:
        return Answers(features=encoder(x), labels=oracle.labels(x, owner), logs=None, categorical=encoder.categorical)
    raw = oracle.scores(x, owner)
    plain = np.asarray(raw.detach().cpu().numpy() if hasattr(raw, "detach") else raw, dtype=np.float64)
    logs = log_softmax(np.maximum(plain, np.finfo(np.float64).min / 4), axis=1)
    return Answers(features=encoder(x), labels=plain.argmax(axis=1), logs=logs, categorical=encoder.categorical)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A trained substitute.

    Attributes:
        learner: which one it is; `constant` when every answer was the same.
        predict: from (n, d) features to (n,) class indices.
    """

    learner: str
    predict: Callable[[Floats], Labels]


def train_copy(answers: Answers, mode: Mode, *, seed: int, learner: Learner | None = None) -> Copy:
    """Learn a substitute from answers.

    Args:
        answers: at least one.
        mode: what to learn from.
        seed: decides the training.
        learner: which; chosen on answers set aside when None.

    Raises:
        Inconclusive: scores are to be learned and none were answered.
    """
    if mode == "scores" and answers.logs is None:
        raise Inconclusive("the service answers no scores to learn from")
    if len(np.unique(answers.labels)) == 1:
        only = int(answers.labels[0])
        return Copy(learner="constant", predict=lambda features: np.full(len(features), only, dtype=np.int64))
    learner = learner or choose_learner(answers, mode, seed=seed)
    train = _boosted if learner == "boosting" else _network
    return Copy(learner=learner, predict=train(answers, mode, seed))


def choose_learner(answers: Answers, mode: Mode, *, seed: int) -> Learner:
    """The learner that agrees better with a quarter of the answers set aside; the network when there are too few."""
    if len(answers.labels) < FEWEST_TO_CHOOSE:
        return "network"
    order = generator(seed, "set aside").permutation(len(answers.labels))
    aside, kept = order[: len(order) // 4], answers.take(order[len(order) // 4 :])
    if len(np.unique(kept.labels)) == 1:
        return "network"
    agreement = {}
    for learner in LEARNERS:
        copy = train_copy(kept, mode, seed=derive(seed, learner), learner=learner)
        agreement[learner] = float((copy.predict(answers.features[aside]) == answers.labels[aside]).mean())
    return max(LEARNERS, key=lambda name: agreement[name])


def _boosted(answers: Answers, mode: Mode, seed: int) -> Callable[[Floats], Labels]:
    features, labels, weights = answers.features, answers.labels, np.ones(len(answers.labels))
    if mode == "scores" and answers.logs is not None:
        share = np.exp(answers.logs)
        row, label = np.nonzero(share >= NEGLIGIBLE)
        features, labels, weights = features[row], label.astype(np.int64), share[row, label]
    leaf = int(np.clip(len(answers.labels) // 50, 2, 10))
    model = Booster(answers.categorical, seed, min_samples_leaf=leaf, max_iter=80)
    return model.fit(features, labels, weights).predict


def _network(answers: Answers, mode: Mode, seed: int) -> Callable[[Floats], Labels]:
    from sklearn.compose import make_column_transformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    width = answers.features.shape[1]
    codes = np.flatnonzero(answers.categorical) if answers.categorical is not None else np.zeros(0, dtype=np.int64)
    numbers = np.setdiff1d(np.arange(width), codes)
    scale = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    prepare = make_column_transformer((scale, numbers), (OneHotEncoder(handle_unknown="ignore", sparse_output=False), codes))
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (64,),
        "alpha": 1e-3,
        "learning_rate_init": 0.005,
        "max_iter": 150,
        "random_state": seed % 2**32,
    }
    soft = mode == "scores" and answers.logs is not None
    model = make_pipeline(prepare, MLPRegressor(**settings) if soft else MLPClassifier(**settings))
    goal = np.maximum(answers.logs, LEAST_LOG) if soft and answers.logs is not None else answers.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(answers.features, goal)
    if soft:
        return lambda x: np.asarray(model.predict(x).argmax(axis=1), dtype=np.int64)
    return lambda x: np.asarray(model.predict(x), dtype=np.int64)
