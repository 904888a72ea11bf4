"""What can be seen of a system by looking at its files: enough to write most of its description without asking."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from holdfast.artifacts.checking import FileCheck, check_file
from holdfast.artifacts.loading import load_object
from holdfast.assessment.rehearsal import rehearse_file
from holdfast.core.errors import HoldfastError, MissingExtra
from holdfast.datasets.reading import Contents, read_contents
from holdfast.models.answers import class_name

SENSITIVE = {
    "health": r"health|diagnos|diseas|disorder|icd|hiv|aids|cancer|diabet|asthma|depress|pregnan|disab|symptom|medic|treat|drug|"
    r"therap|smok|alcohol|bmi|blood|chronic|mental|psych|limitation|insulin|glucose|cholesterol",
    "ethnicity": r"race|racial|ethnic|nationality|citizenship|native|country|immigra|tribe|caste|skin",
    "sex": r"sex|gender|orientation|trans",
    "age": r"age|birth|dob",
    "religion": r"religi|faith|church",
    "politics": r"politic|party|union|vote",
    "money": r"income|salary|wage|wealth|debt|credit",
    "family": r"marital|married|spouse|partner|children|family|relationship",
    "crime": r"crime|criminal|arrest|convict|offen[cs]e|prison",
}
"""What column names sound like, in English; a name counts where a word of it begins so."""
SPECIAL = ("health", "ethnicity", "sex", "religion", "politics", "crime")
"""Kinds that no outsider should infer; the others tell groups apart."""
GROUPS = ("sex", "ethnicity", "age")
IDENTIFIER = re.compile(
    r"(patient|subject|person|customer|client|household|participant|member)|"
    r"(.*[_ -])?(id|key|uuid|guid|ssn|mrn|nhs|passport|email|phone|name|surname|address)([_ -]?(no|nr|number))?",
    re.IGNORECASE,
)
TARGETS = ("target", "label", "class", "y", "outcome", "diagnosis", "treatment", "decision", "result", "income")
PACKAGES = {
    "xgboost": ("xgboost", "xgboost"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "torch": ("torch", "torch"),
    "onnx": ("onnxruntime", "onnx"),
}
"""The package and the extra that open the native files of a framework."""
NAMES_IN_ONNX = b"classlabels_strings"
"""The attribute of ONNX-ML's classifiers and of ZipMap that holds class names."""
CLASSIFIERS = ("scikit-learn", "xgboost", "lightgbm")
"""Frameworks whose models generate nothing."""
MOST_CLASSES = 50
MOST_GROUPS = 20


@dataclass
class Seen:
    """What looking at the files showed.

    Attributes:
        check: of the model's file; None for an endpoint or code.
        framework: of the loaded model; None when it was not opened.
        why_closed, remedy: why the model was not opened, and what to do about it.
        classes, features: the model's own, when it knows them.
        labels: of the target column, in sorted order, for tables.
        named: whether `classes` are the model's own.
        scores: whether it gives scores; None when unknown.
        recipe: `clone` where scikit-learn can refit it.
        data: the contents of each data file, in order.
        target, split: the columns, for tables.
        sensitive, groups: input columns by the sound of their names.
        clusters: a column that names what repeated rows share.
        dropped: columns that are no inputs; those of them that name rows are in `naming`.
        kinds: what the sensitive columns are about.
    """

    check: FileCheck | None = None
    framework: str | None = None
    why_closed: str | None = None
    remedy: str = ""
    classes: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    named: bool = False
    scores: bool | None = None
    recipe: str | None = None
    data: list[Contents] = field(default_factory=list)
    target: str | None = None
    split: str | None = None
    sensitive: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    clusters: str | None = None
    dropped: list[str] = field(default_factory=list)
    naming: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    @property
    def modality(self) -> str:
        """Of the inputs."""
        first = self.data[0]
        return "image" if first.kind == "images" or (first.kind == "array" and first.x.ndim >= 3) else "tabular"

    @property
    def needs_factory(self) -> bool:
        """Whether the file holds a network's weights without the code that builds it."""
        return self.check is not None and self.check.format == "torch" and self.check.allowed

    @property
    def numbered(self) -> bool:
        """Whether the model numbers classes that the data name in words, so that only its maker knows their order."""
        words = not all(name.lstrip("-").isdecimal() for name in self.labels) and set(self.labels) != {"False", "True"}
        if self.check is None or self.framework not in (*CLASSIFIERS, "torch", "onnx") or not words:
            return False
        own = self.classes if self.named else None
        return own is None or own == tuple(str(index) for index in range(len(self.labels)))

    @property
    def generates(self) -> bool | None:
        """False for a model that is seen to classify numbers; None where the files do not show it."""
        first = self.data[0]
        if self.framework in CLASSIFIERS:
            return False
        if first.kind == "array":
            return False if np.issubdtype(first.x.dtype, np.number) else None
        if first.kind != "table":
            return None
        outside = {self.target, self.split, self.clusters, *self.dropped}
        inputs = [name for name in first.x.columns if str(name) not in outside]
        numeric = all(pd.api.types.is_numeric_dtype(first.x[name]) for name in inputs)
        return False if inputs and numeric else None


def inspect(model: Path | None, data: Sequence[Path], target: str | None = None) -> Seen:
    """Look at a model's file and at data files. Nothing that could run code is opened.

    Raises:
        InvalidModel, InvalidData: a file is malformed.
        ConfigurationError: the stated target is no column.
    """
    seen = Seen(data=[read_contents(path, path.name) for path in data])
    if model is not None:
        _look_at_model(seen, model)
    if seen.data[0].kind == "table":
        _look_at_columns(seen, seen.data[0].x, target)
    elif seen.classes is None:
        seen.classes = _names(seen.data[0].labels)
    return seen


def sounds_like(column: str) -> str | None:
    """The kind of sensitive attribute a column's name sounds like."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", column)
    for kind, pattern in SENSITIVE.items():
        if re.search(rf"(?<![a-z])({pattern})" + ("(?![a-z])" if kind in ("sex", "age") else ""), words, re.IGNORECASE):
            return kind
    return None


def _look_at_model(seen: Seen, path: Path) -> None:
    seen.check = check = check_file(path)
    if not check.allowed:
        seen.why_closed = "opening it could run code: " + ", ".join(check.unlisted[:4])
        seen.remedy = f"If you know the file: holdfast trust {check.path.name}"
        return
    if check.format in ("pickle", "compressed pickle", "npy"):
        try:
            rehearse_file(path)
            value = load_object(check)
        except HoldfastError as error:
            seen.why_closed = error.what
            seen.remedy = f"{error.hint or 'Save it again'}, then init again".replace(".,", ",")
            return
        seen.framework = type(value).__module__.split(".")[0].replace("sklearn", "scikit-learn")
        own = getattr(value, "classes_", None)
        if own is not None and np.ndim(own) == 1:
            seen.classes = tuple(class_name(label) for label in own)
            seen.named = True
        names = getattr(value, "feature_names_in_", None)
        seen.features = None if names is None else tuple(str(name) for name in names)
        seen.scores = hasattr(value, "predict_proba") or hasattr(value, "decision_function")
        seen.recipe = "clone" if hasattr(value, "get_params") and hasattr(value, "fit") else None
    else:
        seen.framework = next((name for name in PACKAGES if check.format.startswith(name)), check.format)
        seen.named = seen.framework == "onnx" and NAMES_IN_ONNX in check.data
        package, extra = PACKAGES.get(seen.framework, ("", ""))
        if package and find_spec(package) is None:
            missing = MissingExtra.of(package, extra, "This model file")
            seen.why_closed, seen.remedy = missing.what, f"{missing.hint}, then init again"


def _look_at_columns(seen: Seen, frame: pd.DataFrame, target: str | None) -> None:
    columns = [str(name) for name in frame.columns]
    seen.split = next((name for name in columns if _is_split(frame[name])), None)
    seen.target = target or _likely_target(seen, frame, columns)
    if seen.target is not None and seen.target in columns:
        seen.labels = _names(frame[seen.target].dropna().to_numpy())
        seen.classes = seen.classes or seen.labels
    outside = {seen.target, seen.split}
    inputs = [name for name in columns if name not in outside and (seen.features is None or name in seen.features)]
    for name in columns:
        if name not in outside and IDENTIFIER.fullmatch(name) and (seen.features is None or name not in seen.features):
            repeated = bool(frame[name].duplicated().any()) and frame[name].nunique() > MOST_GROUPS
            seen.clusters = seen.clusters or (name if repeated else None)
            seen.dropped.append(name)
            seen.naming.append(name)
    for name in inputs:
        kind = sounds_like(name)
        if kind is None or name in seen.dropped:
            continue
        seen.kinds.add(kind)
        if kind in SPECIAL:
            seen.sensitive.append(name)
        if kind in GROUPS:
            seen.groups.append(name)
    if seen.features is not None:
        seen.dropped += [name for name in columns if name not in {*outside, *seen.features, *seen.dropped}]
    seen.dropped = [name for name in seen.dropped if name != seen.clusters]


def _likely_target(seen: Seen, frame: pd.DataFrame, columns: list[str]) -> str | None:
    """The column the model predicts: one that is no input and holds the model's classes, then one that is called so."""
    free = [name for name in columns if name != seen.split and (seen.features is None or name not in seen.features)]
    if seen.classes is not None:
        fitting = [name for name in free if set(_names(frame[name].dropna().to_numpy())) <= set(seen.classes)]
        if len(fitting) == 1:
            return fitting[0]
        free = fitting or free
    called = [name for name in free if name.lower() in TARGETS]
    few = [name for name in free if frame[name].nunique() <= MOST_CLASSES and not _is_decimal(frame[name])]
    return next((name for name in [*called, *reversed(few)] if name in few), None)


def _is_split(column: Any) -> bool:
    return not pd.api.types.is_numeric_dtype(column) and set(column.dropna().unique()) == {"train", "holdout"}


def _is_decimal(column: Any) -> bool:
    return pd.api.types.is_float_dtype(column) and not bool((column.dropna() == column.dropna().round()).all())


def _names(labels: Any) -> tuple[str, ...]:
    return tuple(sorted({class_name(value) for value in pd.unique(pd.Series(labels))}))
