"""Whether the model that was measured is, at the end of a measurement, the one it was at the beginning.

A service that throttles, a model that keeps state or a file that is swapped turns into another model on the way. What is then
measured is neither: a model that turned constant leaks nothing and cannot be fooled. So some rows are asked before each
probe, and the same rows again when it is done; probes that ask in rounds look in between as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import require_unchanged, require_varied
from holdfast.core.errors import HoldfastError, Inconclusive
from holdfast.core.oracle import Access, Oracle
from holdfast.core.target import Dataset, Model, Target
from holdfast.probes.footing import some

ASKED = 200
"""Rows at most of each data set that are asked before and after."""
ASK_NOTHING = ("data", "files")
"""The access of probes that never ask the model."""


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
        self._before: list[tuple[Model, Answers]] = []
        if access in ASK_NOTHING:
            return
        models = [target.model] if target.weights is target.model else [target.model, target.weights]
        for model in models:
            try:
                self._before.append((model, _ask(model, self._rows)))
            except HoldfastError:
                continue

    def require(self) -> None:
        """Return if the models answer as they did.

        Raises:
            Inconclusive: more answers than a few, or their scores, are others now, all are the same now, or the model fails.
        """
        for model, before in self._before:
            try:
                after = _ask(model, self._rows)
            except HoldfastError as error:
                raise Inconclusive("the model answered before this measurement and fails after it", hint=error.hint) from error
            (labels, scores), (labels_now, scores_now) = before, after
            require_varied(labels, labels_now)
            require_unchanged(labels, labels_now)
            differ = ~np.isclose(scores, scores_now, rtol=1e-4, atol=1e-6, equal_nan=True)
            changed: NDArray[np.bool_] = np.any(differ, axis=1)
            require_unchanged(np.zeros(len(labels), dtype=bool), changed)


def _ask(model: Model, parts: list[Dataset]) -> Answers:
    """(n,) labels, and (n, k) scores where the model gives them."""
    oracle = Oracle(model, min(model.access, Access.SCORES), max(map(len, parts)))
    labels = np.concatenate([oracle.judge(part.x) for part in parts])
    if model.access < Access.SCORES:
        return labels, np.zeros((len(labels), 0))
    return labels, np.concatenate([np.asarray(oracle.scores(part.x), dtype=float) for part in parts])
