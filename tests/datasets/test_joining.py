"""Data brought to a model: a column or label that does not fit is the user's to hear about, not a fault of Holdfast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast.core.errors import InvalidData
from holdfast.datasets.joining import join
from holdfast.datasets.reading import Part


def part(x: pd.DataFrame) -> Part:
    return Part(
        role="train",
        kind="table",
        x=x,
        labels=np.array(["no", "yes"]),
        ids=np.array(["1", "2"]),
        sensitive=(),
        groups=None,
        clusters=None,
        digest="d",
        path=Path("folder/train.csv"),
    )


def test_the_models_columns_are_taken_in_its_order() -> None:
    data = join(part(pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": [5, 6]})), ("no", "yes"), ["no", "yes"], ["c", "a"])
    assert data.x.columns.tolist() == ["c", "a"]
    assert data.y.tolist() == [0, 1]


def test_a_column_that_the_model_takes_and_the_part_lacks_is_named() -> None:
    with pytest.raises(InvalidData, match="lacks the column 'b'") as caught:
        join(part(pd.DataFrame({"a": [1, 2]})), ("no", "yes"), ["no", "yes"], ["a", "b"])
    assert caught.value.where == "train.csv"


def test_a_label_that_the_model_does_not_know_is_named() -> None:
    with pytest.raises(InvalidData, match="'maybe'"):
        join(part(pd.DataFrame({"a": [1, 2]})), ("no", "yes"), ["no", "maybe"], None)
