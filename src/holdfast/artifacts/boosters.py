"""Boosters inside pickles: what stands in their state is judged as a native file is, before their library parses it.

XGBoost and LightGBM restore a booster by handing bytes of the pickle to a parser in compiled code that trusts its indices.
While a file is opened, their classes are stood in for by subclasses whose `__setstate__` looks first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.artifacts.lightgbm_files import check_lightgbm
from holdfast.artifacts.xgboost_files import check_xgboost_snapshot
from holdfast.core.errors import InvalidModel


def check_xgboost_state(state: Any, source: str) -> None:
    """Refuse the state of an `xgboost.Booster` that its parser could stumble over.

    Raises:
        InvalidModel: as above.
    """
    content = state.get("handle") if type(state) is dict else None
    if type(content) is not bytearray:
        raise InvalidModel("an XGBoost booster without its bytes", where=source)
    check_xgboost_snapshot(bytes(content), source)


def check_lightgbm_state(state: Any, source: str) -> None:
    """Refuse the state of a `lightgbm.Booster` that its parser could stumble over.

    Raises:
        InvalidModel: as above.
    """
    content = state.get("_handle", state.get("handle")) if type(state) is dict else None
    if type(content) is not str:
        raise InvalidModel("a LightGBM booster without its text", where=source)
    check_lightgbm(content.encode("utf-8", "surrogatepass"), source)


STATES: dict[str, Callable[[Any, str], None]] = {
    "xgboost.core:Booster": check_xgboost_state,
    "lightgbm.basic:Booster": check_lightgbm_state,
}


class BoosterGuard:
    """The stand-ins of one load."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._classes: dict[str, type] = {}
        self._made: list[Any] = []
        self._given: dict[int, type] = {}

    def guarded(self, key: str, found: Any) -> Any:
        """The class of a booster as one that checks its state; anything else as it is."""
        check = STATES.get(key)
        if check is None:
            return found
        if key not in self._classes:
            self._classes[key] = self._subclass(found, check)
        return self._classes[key]

    def lift(self) -> None:
        """Give every booster that was made its own class back.

        Raises:
            InvalidModel: one was never given a state.
        """
        for booster in self._made:
            if id(booster) not in self._given:
                raise InvalidModel(f"a {type(booster).__name__} without a state", where=self._source)
            booster.__class__ = self._given[id(booster)]

    def _subclass(self, kind: type[Any], check: Callable[[Any, str], None]) -> type:
        guard = self

        def make(guarded: type[Any]) -> Any:
            booster = object.__new__(guarded)
            guard._made.append(booster)
            return booster

        def set_state(booster: Any, state: Any) -> None:
            check(state, guard._source)
            if any(type(name) is not str or hasattr(kind, name) for name in state):
                raise InvalidModel("a booster with a method of its own", where=guard._source)
            kind.__setstate__(booster, state)
            guard._given[id(booster)] = kind

        return type(kind.__name__, (kind,), {"__new__": make, "__setstate__": set_state})
