"""Certified radii of ensembles of trees under linf: no input nearer than this is given another class.

The proof is that of `models.tree_search`. It holds for the model's own arithmetic: cells whose margin its rounding might
decide either way count as of another class, unless the model itself may be asked. `confirm` puts a radius to a solver that
somebody else wrote: Veritas (Devos, Meert and Davis 2021, "Versatile verification of tree ensembles").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError, MissingExtra
from holdfast.models.ensembles import LEAF, Floats, Index, TreeEnsemble
from holdfast.models.tree_reach import Columns
from holdfast.models.tree_search import EFFORT, nearest

CONFIRMED, UNDECIDED, CONTRADICTED = 1, 0, -1


def certify_trees(
    ensemble: TreeEnsemble,
    x: Array,
    y: NDArray[np.int64],
    domain: Domain,
    *,
    columns: Sequence[str] | None = None,
    predict: Callable[[Array], NDArray[np.int64]] | None = None,
    effort: int = EFFORT,
) -> Floats:
    """(n,) no input of the domain at a smaller distance is given another class than y; infinite where none is at any.

    All real numbers count as inputs, not only those that the arrays' type holds, and a distance that is computed in that type
    is never smaller than the radius by its rounding alone.

    The radius of the domain is the largest that is looked at: what is proven up to there is infinite.

    Args:
        ensemble: the model's trees.
        x: (n, ...) inputs in the domain's arrays.
        y: (n,) their classes by the model.
        domain: under linf; its radius limits what is looked at.
        columns: the ensemble's columns by the table's names; None where both have the same order.
        predict: the model itself on the domain's arrays; it settles what lies within the rounding of its sums.
        effort: most leaf bounds for one input; with few the radius is smaller, never wrong.

    Raises:
        ConfigurationError: the domain is not one that trees can be searched in.
    """
    view = Columns(ensemble, domain, columns)
    setting = view.setting(x, real=True)

    def ask(rows: Floats, owner: Index) -> NDArray[np.bool_]:
        assert predict is not None
        return np.asarray(predict(view.back(x[owner], rows)) != y[owner])

    found = nearest(
        ensemble,
        setting.rows,
        y,
        setting.reach,
        grid=setting.grid,
        ask=None if predict is None else ask,
        effort=effort,
        within=domain.radius,
    )
    beyond = found.proven >= domain.radius if np.isfinite(domain.radius) else np.isinf(found.proven)
    unit = 4 * float(np.finfo(np.float32 if "32" in str(x.dtype) else np.float64).eps)
    size = (setting.reach.weight * np.abs(np.nan_to_num(setting.rows))).max(axis=1, initial=0.0)
    rounded = np.maximum(found.proven * (1 - unit) - 8 * float(np.finfo(np.float64).eps) * size, 0.0)
    return np.where(beyond, setting.fixed_cost, np.minimum(rounded, setting.fixed_cost))


def confirm(
    ensemble: TreeEnsemble,
    x: Floats,
    y: NDArray[np.int64],
    radius: Floats,
    *,
    seconds: float = 1.0,
    low: Any = -np.inf,
    high: Any = np.inf,
) -> NDArray[np.int64]:
    """(n,) whether Veritas proves each radius: `CONFIRMED`, `UNDECIDED` in the given time, or `CONTRADICTED` by an example.

    Args:
        ensemble: the model's trees.
        x: (n, features) rows without missing cells.
        y: (n,) their classes.
        radius: (n,) the radii; inputs strictly nearer are looked at.
        seconds: for one row and class.
        low, high: the box of valid inputs.

    Raises:
        ConfigurationError: a row has a missing cell.
        MissingExtra: Veritas is not installed.
    """
    try:
        import veritas
    except ImportError as error:
        raise MissingExtra.of("dtai-veritas", "trees", "A second opinion on certified radii") from error
    if np.isnan(x).any():
        raise ConfigurationError("Veritas is asked about rows without missing cells")
    low, high = np.broadcast_to(low, x.shape[1:]), np.broadcast_to(high, x.shape[1:])
    sums: dict[tuple[int, int], Any] = {}
    verdict = np.full(len(x), CONFIRMED)
    for row in range(len(x)):
        inside = radius[row] * (1 - 1e-9) if np.isfinite(radius[row]) else np.inf
        ends = np.maximum(low, x[row] - inside), np.nextafter(np.minimum(high, x[row] + inside), np.inf)
        box = [veritas.Interval(a, b) for a, b in zip(*ends, strict=True)]
        for target in range(ensemble.classes):
            label = int(y[row])
            if target == label:
                continue
            if (label, target) not in sums:
                sums[label, target] = _as_veritas(veritas, ensemble, label, target)
            config = veritas.Config(veritas.HeuristicType.MAX_OUTPUT)
            config.stop_when_optimal = False
            config.focal_eps = 0.2
            config.ignore_state_when_worse_than = 4 * ensemble.rounding
            config.stop_when_num_solutions_exceeds = 1
            search = config.get_search(sums[label, target].prune(box), box)
            reason = search.step_for(seconds, 100)
            if search.num_solutions() and search.get_solution(0).output > 4 * ensemble.rounding:
                verdict[row] = CONTRADICTED
            elif reason != veritas.StopReason.NO_MORE_OPEN and verdict[row] == CONFIRMED:
                verdict[row] = UNDECIDED
    return verdict


def _as_veritas(veritas: Any, ensemble: TreeEnsemble, label: int, target: int) -> Any:
    """The lead of one class over another as Veritas' trees."""
    lead = ensemble.lead(label, target)
    trees = veritas.AddTree(1, veritas.AddTreeType.REGR)
    for root in ensemble.roots:
        tree = trees.add_tree()
        stack = [(int(root), tree.root())]
        while stack:
            node, place = stack.pop()
            if ensemble.feature[node] == LEAF:
                tree.set_leaf_value(place, 0, float(lead[node]))
                continue
            tree.split(place, int(ensemble.feature[node]), float(ensemble.split[node]))
            stack += [(int(ensemble.left[node]), tree.left(place)), (int(ensemble.right[node]), tree.right(place))]
    trees.set_base_score(0, float(ensemble.base[target] - ensemble.base[label]))
    return trees
