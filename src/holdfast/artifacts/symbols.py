"""What the pickle machine computes with, and the rules on what a listed function may be called with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PARTIAL_FUNCTIONS = ("sklearn.utils.validation:check_array",)
"""What `functools.partial` may hold: histogram boosting keeps a converter of its categories in one."""
BOUND_METHODS = tuple(
    (f"sklearn.ensemble._hist_gradient_boosting.gradient_boosting:HistGradientBoosting{kind}", "_raw_predict")
    for kind in ("Classifier", "Regressor")
)
"""What `getattr` may fetch: histogram boosting with early stopping refers to its own method."""
INDEXES = tuple(f"pandas:{kind}Index" for kind in ("", "Datetime", "Multi", "Range"))
"""What pandas may restore as an index."""


@dataclass(frozen=True, slots=True)
class Global:
    """A reference to a module's attribute."""

    key: str


@dataclass(slots=True, eq=False)
class Made:
    """What a call or construction would give."""

    key: str
    arguments: tuple[Any, ...]
    state: Any = None
    built: bool = False


@dataclass(slots=True, eq=False)
class Items:
    """A list, dictionary or set; of a dictionary the first text keys are kept. What was judged by its items is complete."""

    kind: str
    known: dict[str, Any] = field(default_factory=dict)
    complete: bool = False


class _Opaque:
    """Bytes, long text, large numbers, storages: values whose content decides nothing here."""

    __slots__ = ()


OPAQUE = _Opaque()


def forbidden_call(key: str, arguments: tuple[Any, ...]) -> str | None:
    """How an otherwise allowed function is used that may not be called with these arguments; None where it may."""
    if key == "copyreg:_reconstructor":
        fits = len(arguments) == 3 and all(type(part) is Global for part in arguments[:2])
        return None if fits and arguments[1].key == "builtins:object" and arguments[2] is None else "with a base class"
    if key == "_codecs:encode":
        fits = len(arguments) == 2 and type(arguments[0]) in (str, _Opaque) and arguments[1] == "latin1"
        return None if fits else "with another codec"
    if key == "functools:partial":
        return None if len(arguments) == 1 and is_partial_function(arguments[0]) else "of another function"
    if key == "pandas.core.indexes.base:_new_Index":
        fits = len(arguments) == 2 and type(arguments[0]) is Global and arguments[0].key in INDEXES
        return None if fits else "of something else than an index"
    if key == "builtins:getattr":
        fits = len(arguments) == 2 and type(arguments[0]) is Made and (arguments[0].key, arguments[1]) in BOUND_METHODS
        return None if fits else "of another attribute"
    return None


def claims_size(key: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a call would allocate what its arguments say instead of what the file holds."""
    if key == "builtins:bytearray":
        content, coding = (*arguments, None, None)[:2]
        encoded = type(content) is Made and content.key == "_codecs:encode"
        has_content = not arguments or encoded or type(content) in (str, _Opaque)
        return len(arguments) > 2 or not has_content or coding not in (None, "latin-1")
    if key == "builtins:bytes":
        return bool(arguments)
    if key.endswith((":_reconstruct", ":_mareconstruct")):
        sizes = [part for part in arguments if type(part) is tuple]
        return not sizes or any(part != (0,) for part in sizes)
    return False


def is_partial_function(value: Any) -> bool:
    return type(value) is Global and value.key in PARTIAL_FUNCTIONS


def fits_partial(state: Any) -> bool:
    return type(state) is tuple and len(state) == 4 and is_partial_function(state[0])
