"""How well the model does its job, so that what a control costs can be seen."""

from __future__ import annotations

import numpy as np

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
    auc = None
    if scores is not None and np.isfinite(scores).all() and (counts > 0).all() and len(counts) > 1:
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        auc = float(roc_auc_score(data.y, shares[:, 1] if len(counts) == 2 else shares, multi_class="ovr"))
    return Utility(
        rows=len(data),
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        majority_share=float(counts.max() / counts.sum()),
        auc=auc,
        correct=np.packbits(right).tobytes().hex(),
        clusters="" if data.clusters is None else ",".join(map(str, np.unique(data.clusters, return_inverse=True)[1])),
    )
