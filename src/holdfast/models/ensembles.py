"""Ensembles of trees as arrays, whatever library trained them: what an exact search for robustness reads.

1. `read_ensemble` takes thresholds and leaf values out of a fitted model (`models.tree_formats` knows each library's form).
2. Every threshold becomes "left if x < split" on float64 inputs. Libraries that read float32 round the input first; the
   split is the smallest float64 that the rounding carries to the right, so that no input is routed otherwise than there.
3. The sum of the leaves is held against the model's own margins: on the given rows, on random ones, with missing cells,
   and one step to either side of thresholds. A model that answers otherwise anywhere is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import InvalidData, InvalidModel
from holdfast.core.seeds import generator

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
VISITS_AT_ONCE = 2**20
"""Most pairs of a row and a tree that are walked at once."""
WHOLE_SUMS = 2**20
CHECKED_ROWS = 512
CHECKED_SPLITS = 1024
LEAF = -1


@dataclass(frozen=True, kw_only=True)
class TreeEnsemble:
    """A sum of trees for each class. Nodes are numbered over all trees; a leaf has feature `LEAF` and itself as children.

    Attributes:
        feature, left, right: (nodes,) what a node splits on, and where it leads.
        split: (nodes,) left if x < split.
        missing_left: (nodes,) whether a missing cell goes left.
        value: (nodes, classes) what a leaf adds to each class's margin; 0 for other nodes.
        roots: (trees,) the first node of each tree.
        base: (classes,) what is added to the trees.
        features: how many columns the model takes.
        takes_missing: whether the model itself answers rows with missing cells.
        rounding: how far the model's own margins may lie from exact sums, for the rounding of its sums; 0 where they are exact,
            and then the lower of two classes with equal margins wins.
    """

    feature: Index
    left: Index
    right: Index
    split: Floats
    missing_left: NDArray[np.bool_]
    value: Floats
    roots: Index
    base: Floats
    features: int
    takes_missing: bool
    rounding: float
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> int:
        """How many margins a row has."""
        return len(self.base)

    @property
    def trees(self) -> int:
        """How many trees are summed."""
        return len(self.roots)

    def leaves(self, x: Floats) -> Index:
        """(n, trees) the leaf that each row falls into."""
        x = self._rows(x)
        node = np.tile(self.roots, (len(x), 1))
        rows = np.arange(len(x))[:, None]
        while (self.feature[node] != LEAF).any():
            cell = x[rows, np.maximum(self.feature[node], 0)]
            goes_left = np.where(np.isnan(cell), self.missing_left[node], cell < self.split[node])
            node = np.where(goes_left, self.left[node], self.right[node])
        return node

    def margins(self, x: Floats) -> Floats:
        """(n, classes) the sums of the leaves, in float64; a binary model with one margin has 0 beside it."""
        x = self._rows(x)
        width = max(1, VISITS_AT_ONCE // (self.trees * self.classes))
        parts = [self.value[self.leaves(x[at : at + width])].sum(axis=1) for at in range(0, len(x), width)]
        return self.base + (np.concatenate(parts) if parts else np.zeros((0, self.classes)))

    def thresholds(self, feature: int) -> Floats:
        """The sorted splits on a feature; each is the smallest value that goes right."""
        return self._splits()[feature]

    def lead(self, label: int, target: int) -> Floats:
        """(nodes,) what each leaf adds to the margin of `target` over that of `label`."""
        key = ("lead", label, target)
        if key not in self._cache:
            self._cache[key] = np.ascontiguousarray(self.value[:, target] - self.value[:, label])
        return np.asarray(self._cache[key])

    def _splits(self) -> list[Floats]:
        if "splits" not in self._cache:
            inner = self.feature != LEAF
            order = np.argsort(self.feature[inner], kind="stable")
            feature, split = self.feature[inner][order], self.split[inner][order]
            ends = np.searchsorted(feature, np.arange(self.features + 1))
            found = [np.unique(split[a:b]) for a, b in pairwise(ends)]
            self._cache["splits"] = [one[np.isfinite(one)] for one in found]
        return list(self._cache["splits"])

    def _rows(self, x: Floats) -> Floats:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise InvalidData(f"rows of shape {x.shape[1:]} where the trees take {self.features} columns")
        return x


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What `models.tree_formats` reads: an ensemble's arrays, and the model's own margins to hold them against.

    Attributes:
        ensemble: in the order of the model's own classes.
        margins: (n, classes) or (n,) the model's own margins of (n, features) float64 rows.
    """

    ensemble: TreeEnsemble
    margins: Callable[[Floats], NDArray[Any]]


def read_ensemble(model: Any, rows: Floats | None = None, *, seed: int = 0) -> TreeEnsemble:
    """The trees of a fitted classifier, checked against the model's own margins.

    Args:
        model: a scikit-learn decision tree, random forest, extra trees, gradient boosting or histogram boosting; an XGBoost or
            LightGBM booster or classifier; or Holdfast's adapter of one of these, whose order of classes is kept.
        rows: (n, features) rows like those it will be asked about, to check on.
        seed: of the random rows that it is checked on.

    Raises:
        InvalidModel: it is no such model, has splits on categories or linear leaves, or answers otherwise than its trees do.
        InvalidData: the rows do not have the model's columns.
    """
    from holdfast.models.tree_formats import read_nodes, source_of

    read = read_nodes(model)
    _require_equal(read, rows, seed, source_of(model))
    return read.ensemble


def as_read_in_float32(threshold: Floats, *, inclusive: bool) -> Floats:
    """The smallest float64 that a model which rounds its inputs to float32 sends right.

    Args:
        threshold: (n,) the model's own thresholds.
        inclusive: whether an input equal to the threshold goes left.
    """
    with np.errstate(over="ignore"):
        first = threshold.astype(np.float32)
        beyond = first.astype(np.float64)
        behind = beyond <= threshold if inclusive else beyond < threshold
        first = np.where(behind, np.nextafter(first, np.float32(np.inf)), first)
        last = np.nextafter(first, np.float32(-np.inf))
        middle = last.astype(np.float64) / 2 + first.astype(np.float64) / 2
        split = np.where(middle.astype(np.float32) == first, middle, np.nextafter(middle, np.inf))
    return np.where(np.isfinite(first), split, first.astype(np.float64))


def rounding_of(value: Floats, roots: Index, base: Floats, dtype: type[np.floating[Any]]) -> float:
    """The largest error of summing one leaf of each tree in that type, in any order (Higham 2002, equation 4.4).

    0 where no sum is rounded: whole votes, as of fully grown forests.
    """
    if not base.any() and (value == np.rint(value)).all() and len(roots) * np.abs(value).max() < WHOLE_SUMS:
        return 0.0
    tree = np.searchsorted(roots, np.arange(len(value)), side="right") - 1
    largest = np.zeros((len(roots), value.shape[1]))
    np.maximum.at(largest, tree, np.abs(value))
    size = float((np.abs(base) + largest.sum(axis=0)).max())
    unit = float(np.finfo(dtype).eps)
    return unit * ((len(roots) + 2) * size + 4)


def _require_equal(read: Nodes, rows: Floats | None, seed: int, source: str) -> None:
    """Return if the model's own margins are the sums of the leaves wherever they are looked at.

    Raises:
        InvalidModel: they are not.
    """
    checked = _checked_rows(read.ensemble, rows, seed)
    own = np.asarray(read.margins(checked), dtype=np.float64)
    sums = read.ensemble.margins(checked)
    if own.ndim == 1 or own.shape[1] == 1:
        own = np.stack([np.zeros(len(own)), own.reshape(-1)], axis=1)
    if own.shape != sums.shape:
        raise InvalidModel(f"answers {own.shape[1]} margins a row where its trees have {sums.shape[1]}", where=source)
    apart = ~(np.abs(own - sums) <= 2 * read.ensemble.rounding + 1e-12)
    if apart.any():
        raise InvalidModel(
            f"its trees say otherwise than the model itself on {int(apart.any(axis=1).sum())} of {len(checked)} rows",
            where=source,
            hint="The trees were read wrongly, or something else changes the answers; attack it by its answers instead.",
        )


def _checked_rows(ensemble: TreeEnsemble, rows: Floats | None, seed: int) -> Floats:
    """Given rows, random ones over the range of the splits, the same with missing cells, and rows next to splits."""
    random = generator(seed, "checked rows")
    ends = [ensemble.thresholds(f) for f in range(ensemble.features)]
    low = np.array([one[0] if len(one) else 0.0 for one in ends])
    high = np.array([one[-1] if len(one) else 1.0 for one in ends])
    margin = 0.1 * (high - low) + 1e-3 * np.maximum(np.abs(low), np.abs(high))
    drawn = low - margin + random.random((CHECKED_ROWS, ensemble.features)) * (high - low + 2 * margin)
    parts = [drawn]
    if rows is not None and len(rows):
        given = ensemble._rows(np.asarray(rows))
        parts.append(given[random.permutation(len(given))[:CHECKED_ROWS]])
    places = np.flatnonzero((ensemble.feature != LEAF) & np.isfinite(ensemble.split))
    places = places[random.permutation(len(places))[:CHECKED_SPLITS]]
    beside = np.concatenate(parts)[random.integers(sum(map(len, parts)), size=2 * len(places))]
    at = np.repeat(places, 2)
    step = np.where(np.arange(len(at)) % 2 == 0, ensemble.split[at], np.nextafter(ensemble.split[at], -np.inf))
    beside[np.arange(len(at)), ensemble.feature[at]] = step
    parts.append(beside)
    checked: Floats = np.concatenate(parts)
    if ensemble.takes_missing:
        holes = drawn.copy()
        holes[random.random(holes.shape) < 0.3] = np.nan
        return np.concatenate([checked, holes])
    return checked[~np.isnan(checked).any(axis=1)]
