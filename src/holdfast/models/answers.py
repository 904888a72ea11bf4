"""What models answer, checked and brought into one form: class indices and (n, k) logits or log-probabilities.

A model's answer is input from outside. Every adapter passes it through here, in this order: the number of rows, the kind
of answer (`logits`, `probabilities` or `labels`), its shape and type, NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import Inconclusive, InvalidModel

Output = Literal["logits", "probabilities", "labels"]
LOG_ZERO = float(np.log(np.finfo(np.float64).tiny))
"""The log-probability that stands for a probability of exactly 0 (about -708.4), so that scores stay finite."""
SUM_TOLERANCE = 1e-3
"""How far the probabilities of one row may add up from 1: float16 models and rounded answers."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a model is loaded with besides its file.

    Attributes:
        sample: a few input rows, on which the form of the answers is found out.
        labels: the class names that occur in the data, in the order of the raw labels.
        classes: the class names as the system file states them; None when it doesn't.
        output: the form of the answers as the system file states it; None when it doesn't.
        source: what to call the model in errors.
        fixed: `classes` is final, and a class that the model does not know has probability 0.
    """

    sample: Any
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    output: Output | None = None
    source: str = "model"
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise InvalidModel("a class is named twice in model.classes", where=self.source)


def class_name(value: Any) -> str:
    """The name of a class label: whole numbers without a decimal point, all else as Python prints it."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def unnamed_classes(count: int, context: Context) -> tuple[str, ...]:
    """Names for the classes of a model that answers in `count` columns and names none of them.

    The system file's names win. Else data labels 0..k-1 name themselves, and any other labels are taken in sorted order,
    as scikit-learn's LabelEncoder and torchvision's ImageFolder do.

    Raises:
        InvalidModel: the number of names does not fit.
    """
    if context.classes is not None:
        if len(context.classes) != count:
            raise InvalidModel(
                f"answers with {count} classes, but model.classes names {len(context.classes)}", where=context.source
            )
        return context.classes
    numbers = tuple(str(index) for index in range(count))
    if set(context.labels) <= set(numbers):
        return numbers
    if len(context.labels) == count:
        return context.labels
    raise InvalidModel(
        f"answers with {count} classes, but the data have {len(context.labels)}: {shown(context.labels)}",
        where=context.source,
        hint="Name the classes in the order of the model's answers: model.classes: [...].",
    )


def sorts_words(classes: tuple[str, ...], names: tuple[str, ...] | None, context: Context) -> bool:
    """Whether the order of the classes is a guess: neither the model nor the system file gives it, and the labels are words."""
    given = names is not None or context.classes is not None or context.fixed or set(classes) == {"False", "True"}
    return not given and classes == context.labels and not all(name.lstrip("-").isdecimal() for name in classes)


def shown(names: Sequence[str], most: int = 8) -> str:
    """A short list of names for a message."""
    listed = ", ".join(repr(name) for name in names[:most])
    return f"{listed}, and {len(names) - most} more" if len(names) > most else listed


def as_answer(raw: Any, rows: int, source: str) -> NDArray[Any]:
    """The answer as a NumPy array with one row an input.

    Raises:
        InvalidModel: it is none, or has another number of rows.
    """
    if hasattr(raw, "detach"):
        raw = raw.detach().cpu().numpy()
    elif isinstance(raw, (pd.DataFrame, pd.Series)):
        raw = raw.to_numpy()
    try:
        answer = np.asarray(raw)
    except ValueError as error:
        raise InvalidModel(f"answered something that is no array: {error}", where=source) from error
    if answer.ndim == 0 or (answer.dtype == object and not all(isinstance(v, (str, bool, int)) for v in answer.ravel()[:100])):
        raise InvalidModel(
            f"answered {type(raw).__name__} for {rows} rows where one answer a row was expected",
            where=source,
            hint="The model must return (n,) labels or (n, classes) scores.",
        )
    if len(answer) != rows:
        raise InvalidModel(f"answered {len(answer)} rows for {rows}", where=source)
    if answer.ndim > 2:
        if int(np.prod(answer.shape[1:])) != max(answer.shape[1:]):
            raise InvalidModel(f"answered an array of shape {answer.shape}; one score a class was expected", where=source)
        answer = answer.reshape(rows, -1)
    return answer


def detect_output(answer: NDArray[Any], source: str) -> Output:
    """Which form a sample of answers has.

    Whole numbers, booleans and strings in one column are labels; rows of numbers in [0, 1] that add up to 1, or a single
    number in [0, 1], are probabilities; other numbers are logits. What a sample cannot tell, `model.output` states.

    Raises:
        InvalidModel: none of these.
    """
    single = answer.ndim == 1 or answer.shape[1] == 1
    if answer.dtype.kind in "biuUSO":
        if not single:
            raise InvalidModel(f"answered {answer.dtype} in {answer.shape[1]} columns; scores must be decimals", where=source)
        return "labels"
    if answer.dtype.kind != "f":
        raise InvalidModel(f"answered numbers of type {answer.dtype}", where=source)
    if np.isnan(answer).any():
        raise _nan(source)
    unit = bool(((answer >= 0) & (answer <= 1 + SUM_TOLERANCE)).all())
    if single:
        whole = bool((answer == np.round(answer)).all())
        return "labels" if whole else "probabilities" if unit else "logits"
    adds_up = bool((np.abs(answer.astype(np.float64).sum(axis=1) - 1) <= SUM_TOLERANCE).all())
    return "probabilities" if unit and adds_up else "logits"


def as_scores(answer: NDArray[Any], output: Output, source: str, classes: int | None = None) -> NDArray[np.float64]:
    """(n, k) float64 logits or log-probabilities; a single column becomes two, for the negative and the positive class.

    Raises:
        InvalidModel: shape, type, range or number of classes is wrong.
        Inconclusive: NaN.
    """
    if answer.dtype.kind not in "fiub":
        raise InvalidModel(f"answered {answer.dtype} where {output} were expected", where=source)
    scores = answer.astype(np.float64, copy=False)
    if np.isnan(scores).any():
        raise _nan(source)
    if scores.ndim == 1:
        scores = scores[:, None]
    if output == "probabilities":
        scores = log_probabilities(scores, source)
    elif scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    if classes is not None and scores.shape[1] != classes:
        raise InvalidModel(f"answered {scores.shape[1]} scores a row; it has {classes} classes", where=source)
    return scores


def log_probabilities(p: NDArray[np.float64], source: str) -> NDArray[np.float64]:
    """Log of (n, k) probabilities, or of the (n, 1) probability of the positive class; 0 becomes `LOG_ZERO`.

    Raises:
        InvalidModel: not probabilities.
    """
    if p.shape[1] == 1:
        p = np.hstack([1 - p, p])
    elif p.size and float(np.abs(p.sum(axis=1) - 1).max()) > SUM_TOLERANCE:
        raise InvalidModel("answered probabilities that do not add up to 1", where=source, hint="Is model.output right?")
    if p.size and (p.min() < -1e-9 or p.max() > 1 + SUM_TOLERANCE):
        raise InvalidModel("answered probabilities outside [0, 1]", where=source, hint="Is model.output right?")
    return np.log(np.clip(p, np.exp(LOG_ZERO), 1.0))


def as_labels(answer: NDArray[Any], classes: pd.Index, source: str) -> NDArray[np.int64]:
    """(n,) class indices of labels that are given by name or value.

    Args:
        answer: (n,) or (n, 1) labels.
        classes: the labels in the order of the class indices, in the model's own type.
    """
    flat = answer.reshape(len(answer), -1)
    if flat.shape[1] != 1:
        raise InvalidModel(f"answered {flat.shape[1]} labels a row; one was expected", where=source)
    if flat.dtype.kind == "f" and np.isnan(flat).any():
        raise _nan(source)
    if flat.dtype.kind == "b" and classes.dtype.kind in "iu":
        flat = flat.astype(np.int64)
    found = classes.get_indexer(pd.Index(flat[:, 0]))
    if (found < 0).any():
        strangers = sorted({class_name(value) for value in flat[found < 0, 0][:100]})
        raise InvalidModel(f"answered labels that are none of its classes: {shown(strangers)}", where=source)
    return found.astype(np.int64)


def _nan(source: str) -> Inconclusive:
    return Inconclusive(
        "the model answered NaN",
        where=source,
        hint="Find the inputs that cause it; a model that answers NaN cannot be judged.",
    )
