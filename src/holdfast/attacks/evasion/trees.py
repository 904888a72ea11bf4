"""The nearest adversarial example of an ensemble of trees, under linf, by somebody who holds the model.

1. The ensemble (`models.ensembles.read_ensemble`) tells where its answers change; the model file is the attacker's.
2. `models.tree_search` finds the nearest cell of another class and proves that none is nearer; `certification.trees` gives
   that proof as a certified radius.
3. Examples lie just across thresholds, on numbers that the input's own type can hold. Each is put to the model as served,
   and only what that misclassifies counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import Inconclusive
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams
from holdfast.models.ensembles import Floats, Index, TreeEnsemble
from holdfast.models.tree_reach import Columns
from holdfast.models.tree_search import EFFORT, nearest

MOST_REFUSED = 0.02
"""Share of the examples that the model itself may refuse; more tell that these are not its trees."""


@dataclass(frozen=True, kw_only=True)
class TreeSearch(Attack):
    """Exact search over the cells of an ensemble of trees.

    Attributes:
        ensemble: the model's trees.
        columns: the ensemble's columns by the table's names, where it reads a table; None where both have the same order.
        effort: most leaf bounds for one sample. What ends before its proof is an example, but may not be the nearest.
    """

    ensemble: TreeEnsemble = field(repr=False, compare=False)
    columns: tuple[str, ...] | None = None
    effort: int = EFFORT
    access = Access.LABELS

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:  # noqa: ARG002
        """The nearest example of each sample, or the original where there is none within the radius."""
        columns = Columns(self.ensemble, domain, self.columns)
        setting = columns.setting(x)

        def ask(rows: Floats, owner: Index) -> NDArray[np.bool_]:
            answer = np.zeros(len(rows), dtype=bool)
            if len(able := np.flatnonzero(oracle.remaining(owner) > 0)):
                owner = owner[able]
                answer[able] = oracle.labels(columns.back(x[owner], rows[able]), owner) != y[owner]
            return answer

        found = nearest(
            self.ensemble,
            setting.rows,
            y,
            setting.reach,
            grid=setting.grid,
            ask=ask,
            effort=self.effort,
            within=domain.radius,
        )
        hit = np.flatnonzero(np.isfinite(found.distance))
        rows = setting.rows.copy()
        rows[hit] = found.point[hit]
        asked = hit[oracle.remaining(hit) > 0]
        wins = ask(found.point[asked], asked)
        if (held := int((~wins).sum())) > max(1, MOST_REFUSED * len(asked)):
            raise Inconclusive(
                f"the model answers otherwise than its trees on {held} of {len(asked)} examples",
                hint="Read the trees of the very model that is attacked, or attack it by its answers.",
            )
        return columns.back(x, rows)
