"""Data and model brought together: the model's own columns, and labels as the model's class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import InvalidData
from holdfast.core.target import Dataset
from holdfast.datasets.reading import Part


def join(part: Part, classes: tuple[str, ...], names: Sequence[str], columns: Sequence[Any] | None) -> Dataset:
    """The rows of a part as a model with `classes` takes them.

    Args:
        part: the rows.
        classes: the model's class names.
        names: (n,) the names of the part's labels.
        columns: the model's input columns; None keeps all.

    Raises:
        InvalidData: a label is none of the model's classes, or the part lacks a column that the model takes.
    """
    missing = [str(name) for name in columns or () if name not in part.x.columns]
    if missing:
        raise InvalidData(f"lacks the column {missing[0]!r} that the model takes", where=part.path.name)
    x = part.x if columns is None else part.x[list(columns)]
    return Dataset(
        name=part.role,
        x=x,
        y=class_indices(names, classes, part.path.name),
        classes=classes,
        ids=part.ids,
        sensitive=tuple(name for name in part.sensitive if isinstance(x, pd.DataFrame) and name in x.columns),
        groups=part.groups,
        clusters=part.clusters,
        digest=part.digest,
        path=part.path,
    )


def class_indices(names: Sequence[str], classes: tuple[str, ...], source: str) -> NDArray[np.int64]:
    """(n,) class indices of label names. Labels 0 and 1 and labels False and True name the same two classes.

    Raises:
        InvalidData: a label is none of the classes.
    """
    index = {name: place for place, name in enumerate(classes)}
    aliases = ({"0": "False", "1": "True"}, {"False": "0", "True": "1"})
    found = set(names)
    for alias in aliases:
        if not found <= set(index) and found <= set(alias) and set(classes) == set(alias.values()):
            index = {name: index[other] for name, other in alias.items()}
    strangers = sorted(found - set(index))
    if strangers:
        listed = ", ".join(repr(name) for name in strangers[:5])
        numbered = classes == tuple(str(place) for place in range(len(classes)))
        order = ", ".join(f"label of {name}" for name in classes[:3]) + (", ..." if len(classes) > 3 else "")
        name_them = f" If the model numbers them, add model.classes: [{order}]." if numbered else ""
        raise InvalidData(
            f"labels that the model does not know: {listed}",
            where=source,
            hint=f"The model's classes: {', '.join(repr(name) for name in classes[:10])}.{name_them}",
        )
    return np.array([index[name] for name in names], dtype=np.int64)
