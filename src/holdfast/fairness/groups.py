"""Who is compared with whom: groups by each column, numbers in bands, and the crossings of two columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SMALLEST = 30
"""Distinct rows below which a group is too small to tell anything about."""
MOST_VALUES = 8
"""Distinct numbers up to which each is a group of its own; beyond, numbers are cut into quarters."""
MOST_CATEGORIES = 30
"""Categories beyond which a column names rows rather than groups; only its largest categories are looked at."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which rows belong to which group.

    Attributes:
        members: (n,) masks by group name, of groups large enough.
        too_few: how many distinct rows the groups have that are too small, by name.
    """

    members: Mapping[str, NDArray[np.bool_]]
    too_few: Mapping[str, int]


def find_groups(frame: pd.DataFrame, smallest: int = SMALLEST, copies: NDArray[np.int64] | None = None) -> Grouping:
    """The groups of a frame of group columns, and of each two columns crossed.

    A group that is everyone, or all but fewer than `smallest`, has nobody to be compared with and is left out.

    Args:
        frame: (n, g) the columns.
        smallest: distinct rows that a group must have.
        copies: (n,) what copies of a row share; None when every row is distinct.
    """
    copies = np.arange(len(frame)) if copies is None else copies
    columns = {str(name): _labels(frame[name]) for name in frame.columns}
    members: dict[str, NDArray[np.bool_]] = {}
    too_few: dict[str, int] = {}
    for depth in (1, 2):
        for names in combinations(columns, depth):
            values = _joined(names, columns)
            for value in values.value_counts(sort=True).head(MOST_CATEGORIES).index:
                mask = (values == value).to_numpy(dtype=bool)
                count = count_distinct(copies[mask])
                if count < smallest:
                    too_few[str(value)] = count
                elif count_distinct(copies[~mask]) >= smallest:
                    members[str(value)] = mask
    return Grouping(members=members, too_few=too_few)


def count_distinct(codes: NDArray[np.int64]) -> int:
    """How many different codes there are."""
    return len(np.unique(codes))


def _joined(names: tuple[str, ...], columns: Mapping[str, pd.Series[Any]]) -> pd.Series[Any]:
    joined = f"{names[0]} = " + columns[names[0]]
    for name in names[1:]:
        joined = joined + f", {name} = " + columns[name]
    return joined


def _labels(column: pd.Series[Any]) -> pd.Series[Any]:
    """(n,) text labels: categories as they are, many-valued numbers as quarters named by their bounds."""
    column = column.reset_index(drop=True)
    plain = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    values = column.to_numpy(dtype=float, na_value=np.nan) if plain else np.empty(0)
    if np.isfinite(values).any() and column.nunique() > MOST_VALUES:
        edges = np.unique(np.quantile(values[np.isfinite(values)], [0.25, 0.5, 0.75]))
        place = np.searchsorted(edges, values, side="left")
        names = [f"up to {edges[0]:.4g}"]
        names += [f"above {low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
        names += [f"above {edges[-1]:.4g}"]
        labels = pd.Series([names[index] for index in place], dtype=object)
        return labels.where(pd.Series(np.isfinite(values)), "missing")
    if plain:
        labels = column.map(lambda value: f"{value:g}", na_action="ignore")
    else:
        labels = column.map(str, na_action="ignore")
    return labels.astype(object).where(column.notna(), "missing")
