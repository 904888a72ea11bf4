"""Data entries taken apart: inputs, labels, ids, groups, clusters, split; and joined with a model's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.datasets.joining import class_indices, join
from holdfast.datasets.reading import Part, read_parts
from holdfast.threats.system import DataSection

FRAME = pd.DataFrame(
    {
        "patient": ["p1", "p1", "p2", "p3"],
        "row": ["a", "b", "c", "d"],
        "part": ["train", "holdout", "train", "train"],
        "age": [30, 40, 50, 60],
        "sex": ["f", "m", "f", "m"],
        "note": ["x"] * 4,
        "ill": ["yes", "no", "no", "yes"],
    }
)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    FRAME.to_csv(tmp_path / "d.csv", index=False)
    return tmp_path / "d.csv"


def parts(path: Path, **fields: Any) -> list[Part]:
    return read_parts(DataSection(name="d", path=path.name, **{"target": "ill", **fields}), path)[0]


def test_an_entry_is_taken_apart(csv: Path) -> None:
    section = {"id": "row", "cluster": "patient", "split": "part", "drop": ["note"], "groups": ["sex"], "sensitive": ["sex"]}
    train, holdout = parts(csv, **section)
    assert (train.role, holdout.role) == ("train", "holdout")
    assert train.x.columns.tolist() == ["age", "sex"]
    assert train.x["age"].tolist() == [30, 50, 60]
    assert train.labels.tolist() == ["yes", "no", "yes"]
    assert train.ids.tolist() == ["a", "c", "d"]
    assert train.clusters is not None
    assert train.clusters.tolist() == ["p1", "p2", "p3"]
    assert train.groups is not None
    assert train.groups["sex"].tolist() == ["f", "f", "m"]
    assert holdout.ids.tolist() == ["b"]


def test_rows_without_an_id_column_are_named_by_their_number_only(csv: Path) -> None:
    (part,) = parts(csv, role="holdout")
    assert part.ids.tolist() == ["d-1", "d-2", "d-3", "d-4"]


def test_without_role_or_split_rows_are_held_out_and_that_is_said(csv: Path) -> None:
    found, notes = read_parts(DataSection(name="d", path="d.csv", target="ill"), csv)
    assert found[0].role == "holdout"
    assert "neither role nor split" in notes[0]


def test_digests_follow_the_bytes_and_what_decides_the_rows(csv: Path) -> None:
    digests = {
        parts(csv, role="holdout")[0].digest,
        parts(csv, role="train")[0].digest,
        parts(csv, role="holdout", drop=["note"])[0].digest,
        parts(csv, role="holdout", target="sex")[0].digest,
        *(part.digest for part in parts(csv, split="part")),
    }
    assert len(digests) == 6
    assert parts(csv, role="holdout")[0].digest in digests
    csv.write_bytes(csv.read_bytes() + b"p4,e,train,1,f,x,no\n")
    assert parts(csv, role="holdout")[0].digest not in digests


@pytest.mark.parametrize(
    ("fields", "error", "problem"),
    [
        ({"target": "il"}, ConfigurationError, "Did you mean 'ill'"),
        ({"target": None}, ConfigurationError, "target"),
        ({"id": "patient"}, InvalidData, "cluster"),
        ({"split": "sex"}, InvalidData, "'f', 'm'"),
        ({"split": "part", "role": "train"}, ConfigurationError, "exclude"),
        ({"drop": ["agee"]}, ConfigurationError, "Did you mean 'age'"),
        ({"sensitive": ["nothing"]}, ConfigurationError, "data.d.sensitive"),
        ({"drop": ["patient", "row", "part", "age", "sex", "note"]}, InvalidData, "no columns"),
    ],
)
def test_entries_that_do_not_fit_say_why(csv: Path, fields: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error) as caught:
        parts(csv, **fields)
    assert problem in str(caught.value)


def test_missing_and_decimal_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("a,ill\n1,yes\n2,\n")
    with pytest.raises(InvalidData, match="1 rows have no label") as caught:
        parts(path)
    assert "row 2" in str(caught.value.where)
    path.write_text("a,ill\n1,0.5\n2,0.7\n")
    with pytest.raises(InvalidData, match="decimals"):
        parts(path)


def test_arrays_with_columns_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, images=np.zeros((3, 2, 2), dtype=np.uint8), labels=np.array(["a", "b", "a"]), ward=np.array([1, 2, 2]))
    (part,) = read_parts(DataSection(name="d", path="d.npz", groups=["ward"], cluster="ward"), path)[0]
    assert part.x.dtype == np.float32
    assert part.x.shape == (3, 2, 2)
    assert part.clusters is not None
    assert part.clusters.tolist() == ["1", "2", "2"]
    for arrays in ({"x": np.zeros((3, 2))}, {"x": np.zeros(3), "y": np.zeros(3)}, {"x": np.zeros((3, 2)), "y": np.zeros(2)}):
        np.savez(path, **arrays)
        with pytest.raises(InvalidData):
            parts(path)
    np.savez(path, x=np.full((3, 2), np.nan), y=np.zeros(3, dtype=int))
    with pytest.raises(InvalidData, match="6 NaN"):
        parts(path)


def test_labels_become_the_models_indices() -> None:
    assert class_indices(["b", "a"], ("a", "b"), "d").tolist() == [1, 0]
    assert class_indices(["0", "1"], ("False", "True"), "d").tolist() == [0, 1]
    assert class_indices(["True", "False"], ("0", "1"), "d").tolist() == [1, 0]
    with pytest.raises(InvalidData, match="'c'"):
        class_indices(["a", "c"], ("a", "b"), "d")


def test_a_part_is_joined_on_the_models_columns(csv: Path) -> None:
    (part,) = parts(csv, role="holdout", groups=["sex"], sensitive=["sex"])
    dataset = join(part, ("no", "yes"), ["yes", "no", "no", "yes"], ["age"])
    assert dataset.x.columns.tolist() == ["age"]
    assert dataset.y.tolist() == [1, 0, 0, 1]
    assert dataset.sensitive == ()
    assert dataset.groups is not None
    assert len(dataset.take(np.array([True, False, False, True]))) == 2
