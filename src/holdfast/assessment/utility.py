"""How well the model does its job, so that what a control costs can be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from holdfast.assessment.document import Utility
from holdfast.core.errors import HoldfastError
from holdfast.core.oracle import Access
from holdfast.core.statistics import rate
from holdfast.core.target import Target
from holdfast.probes.footing import tied


def measure_utility(target: Target) -> Utility | None:
    """Accuracy on the holdout rows with its exact interval, and the AUC of a model that gives scores.

    The AUC is that of two classes, or the macro average of one against the rest. Returns None when the model cannot
    answer the holdout rows. Copies of a row are one piece of evidence and share a cluster.
    """
    from sklearn.metrics import roc_auc_score

    data = target.holdout
    if not len(data):
        return None
    try:
        labels = target.model.labels(data.x)
        scores = np.asarray(target.model.scores(data.x)) if target.model.access >= Access.SCORES else None
    except HoldfastError:
        return None
    data = tied(data)
    right = labels == data.y
    accuracy = rate(right, data.clusters)
    counts = np.bincount(data.y, minlength=len(data.classes))
    auc, parts = None, ""
    if scores is not None and np.isfinite(scores).all() and (counts > 0).all() and len(counts) > 1:
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        auc = float(roc_auc_score(data.y, shares[:, 1] if len(counts) == 2 else shares, multi_class="ovr"))
        if 0 < auc < 1:
            parts = ",".join(map(str, np.round(_auc_parts(data.y, shares) * 1e6).astype(int)))
    return Utility(
        rows=len(data),
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        majority_share=float(counts.max() / counts.sum()),
        auc=auc,
        auc_parts=parts,
        correct=np.packbits(right).tobytes().hex(),
        clusters="" if data.clusters is None else ",".join(map(str, np.unique(data.clusters, return_inverse=True)[1])),
    )


def _auc_parts(y: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) what each row moves the AUC by; their sums over clusters have the variance of the AUC.

    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837; for clusters Obuchowski (1997), Biometrics 53:567.
    """
    classes = range(1, 2) if shares.shape[1] == 2 else range(shares.shape[1])
    parts = np.zeros(len(y))
    for label in classes:
        inside, score = y == label, shares[:, label]
        ranks = rankdata(score)
        above = (ranks[inside] - rankdata(score[inside])) / (~inside).sum()
        below = 1 - (ranks[~inside] - rankdata(score[~inside])) / inside.sum()
        parts[inside] += (above - above.mean()) / inside.sum() / len(classes)
        parts[~inside] += (below - below.mean()) / (~inside).sum() / len(classes)
    return parts
