"""Whether the model that was measured is, at the end of a measurement, the one it was at the beginning.

A service that throttles, a model that keeps state or a file that is swapped turns into another model on the way. What is then
measured is neither: a model that turned constant leaks nothing and cannot be fooled. So some rows are asked before each
probe, and the same rows again when it is done; and because a service may still know its answers to those, so are rows that
nobody asked before, half of them before and half afterwards. Probes that ask in rounds look in between as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.attacks.base import CHANGED_HINT, require_unchanged, require_varied
from holdfast.core.errors import HoldfastError, Inconclusive
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import generator
from holdfast.core.target import Dataset, Model, Target
from holdfast.probes.footing import alike, some

ASKED = 200
"""Rows at most of each data set that are asked before and after."""
ASK_NOTHING = ("data", "files")
"""The access of probes that never ask the model."""
MOSTLY = 0.9
"""The share of the commonest answer to fresh rows up to which its growth tells."""
Answers = tuple[NDArray[np.int64], NDArray[np.float64]]


class Steadiness:
    """The answers of a target's model, kept to be compared with later ones.

    A model that fails, or answers in a form that nobody can judge, is left to the probe, which says so.

    Args:
        target: its served model and, where that differs, the bare one.
        access: of the probe.
        seed: decides which rows are asked.
    """

    def __init__(self, target: Target, access: str, seed: int) -> None:
        self._rows = [some(data, ASKED, seed) for data in (target.holdout, target.train) if data is not None and len(data)]
        self._before: list[tuple[Model, Answers, Answers | None]] = []
        if access in ASK_NOTHING:
            return
        fresh = _crossed(target.holdout, seed)
        early, self._late = fresh[:ASKED], fresh[ASKED:]
        models = [target.model] if target.weights is target.model else [target.model, target.weights]
        for model in models:
            try:
                known = _ask(model, [part.x for part in self._rows])
            except HoldfastError:
                continue
            self._before.append((model, known, _ask_if_taken(model, early)))

    def require(self) -> None:
        """Return if the models answer as they did.

        Raises:
            Inconclusive: more answers than a few, or their scores, are others now, all are the same now, or the model fails.
        """
        for model, (labels, scores), early in self._before:
            try:
                labels_now, scores_now = _ask(model, [part.x for part in self._rows])
            except HoldfastError as error:
                raise Inconclusive("the model answered before this measurement and fails after it", hint=error.hint) from error
            require_varied(labels, labels_now)
            require_unchanged(labels, labels_now)
            require_unchanged(np.ones(len(labels), dtype=bool), alike(scores, scores_now))
            if early is None:
                continue
            late = _ask_if_taken(model, self._late)
            if late is None:
                raise Inconclusive("the model answered made-up rows before this measurement and refuses them after it")
            _require_fresh_answers(_commonest(early), _commonest(late))


def _ask_if_taken(model: Model, rows: Any) -> Answers | None:
    """The answers to rows that were made up, which a service that checks its inputs may refuse."""
    try:
        return _ask(model, [rows])
    except HoldfastError:
        return None


def _require_fresh_answers(early: float, late: float) -> None:
    """Return if rows that were never asked before are still told apart.

    Raises:
        Inconclusive: the commonest answer to them took over most of what was answered otherwise.
    """
    if early < MOSTLY and 1 - late < (1 - early) / 4:
        raise Inconclusive(
            f"after this measurement {late:.0%} of rows that were never asked before get one and the same answer, and "
            f"{early:.0%} of such rows did before it",
            hint=CHANGED_HINT,
        )


def _crossed(data: Dataset, seed: int) -> Any:
    """Rows that nobody has asked yet: each takes some columns, or half the way, from one row and the rest from another."""
    random = generator(seed, "crossed rows")
    one, other = (random.integers(len(data), size=2 * ASKED) for _ in range(2))
    if not data.is_table:
        return ((data.x[one] + data.x[other]) / 2).astype(data.x.dtype)
    frame, mate = data.x.iloc[one].reset_index(drop=True), data.x.iloc[other].reset_index(drop=True)
    taken = random.random(frame.shape[1]) < 0.5
    return pd.concat([(mate if take else frame)[[name]] for name, take in zip(frame.columns, taken, strict=True)], axis=1)


def _commonest(answers: Answers) -> float:
    """The share of the commonest answer: of exact score rows where the model gives scores, else of labels."""
    labels, scores = answers
    rows = scores if scores.shape[1] else labels[:, None]
    return float(np.unique(rows, axis=0, return_counts=True)[1].max() / len(rows))


def _ask(model: Model, parts: list[Any]) -> Answers:
    """(n,) labels, and (n, k) scores where the model gives them."""
    oracle = Oracle(model, min(model.access, Access.SCORES), max(map(len, parts)))
    labels = np.concatenate([oracle.judge(part) for part in parts])
    if model.access < Access.SCORES:
        return labels, np.zeros((len(labels), 0))
    return labels, np.concatenate([np.asarray(oracle.scores(part), dtype=float) for part in parts])
