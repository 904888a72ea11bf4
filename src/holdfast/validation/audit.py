"""The data audit: every check on the training and holdout rows, worst findings first.

"Nothing found" means little by itself; `validation.faults` says how much, by planting known faults into the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from holdfast.core.errors import InvalidData
from holdfast.core.target import Dataset
from holdfast.validation import columns, encodings, leakage, rows
from holdfast.validation.findings import Finding, ordered

Check = Callable[[Dataset, Dataset], Iterator[Finding]]
JOINT = ("duplicates", "near duplicates", "labels")
"""Checks that compare whole rows, and so look at the columns that both splits have."""


def checks(seed: int = 0) -> Mapping[str, Check]:
    """Every check, by the name that planted faults refer to."""
    return {
        "schema": columns.check_schema,
        "missing": columns.check_missing,
        "constant": columns.check_constant,
        "ranges": columns.check_ranges,
        "relations": columns.check_relations,
        "identifiers": columns.check_identifiers,
        "encodings": encodings.check_encodings,
        "categories": encodings.check_categories,
        "classes": rows.check_classes,
        "duplicates": rows.check_duplicates,
        "near duplicates": partial(rows.check_near_duplicates, seed=seed),
        "labels": partial(rows.check_doubtful_labels, seed=seed),
        "leakage": partial(leakage.check_leakage, seed=seed),
    }


def audit(train: Dataset, holdout: Dataset, *, seed: int = 0, only: Iterable[str] | None = None) -> tuple[Finding, ...]:
    """Check the data.

    Args:
        train, holdout: what the model was, and was not, trained on.
        seed: of the folds and samples that some checks draw.
        only: names of the checks to run; all by default.

    Raises:
        InvalidData: a split has no rows.
    """
    for data in (train, holdout):
        if not len(data):
            raise InvalidData("no rows", where=data.name)
    known = checks(seed)
    schema = list(known["schema"](train, holdout))
    if any(one.check == "schema" and one.severity == "high" and one.column is None for one in schema):
        return ordered(schema)
    found: list[Finding] = []
    shared = comparable(train, holdout)
    for name in known if only is None else only:
        found.extend(schema if name == "schema" else known[name](*(shared if name in JOINT else (train, holdout))))
    return ordered(found)


def comparable(train: Dataset, holdout: Dataset) -> tuple[Dataset, Dataset]:
    """Both splits with the columns that both have, in one order."""
    if not train.is_table:
        return train, holdout
    shared = [column for column in train.x.columns if column in holdout.x.columns]
    return replace(train, x=train.x[shared]), replace(holdout, x=holdout.x[shared])
