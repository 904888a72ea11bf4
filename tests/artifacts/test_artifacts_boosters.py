"""Boosters inside pickles: forged ones are refused before the compiled parser that they would crash sees them."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris

from holdfast.artifacts.checking import check_file
from holdfast.artifacts.loading import load_object
from holdfast.core.errors import InvalidModel

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
X, Y = load_iris(return_X_y=True)


class Restored:
    """Pickles as an object of a class with a state of our own."""

    def __init__(self, kind: type, state: Any) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> Any:
        return object.__new__, (self.kind,), self.state


class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes `Restored` as NEWOBJ and BUILD, as an instance of its class would be."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Restored):
            self.save_reduce(__import__("copyreg").__newobj__, (obj.kind,), obj.state)
        else:
            super().save(obj, save_persistent_id)


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 4).dump(value)
    return stream.getvalue()


def instructions(booster: Restored) -> bytes:
    """Without the header and the stop."""
    return b"c%s\nBooster\n)\x81" % booster.kind.__module__.encode() + pickle.dumps(booster.state, 2)[2:-1] + b"b"


def xgboost_state(change: Callable[[bytes], bytes]) -> Restored:
    state = xgboost.XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, Y).get_booster().__getstate__()
    return Restored(xgboost.Booster, state | {"handle": bytearray(change(bytes(state["handle"])))})


def lightgbm_state(change: Callable[[str], str], key: str = "_handle") -> Restored:
    model = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=4, min_child_samples=2, verbose=-1, n_jobs=1).fit(X, Y)
    state = model.booster_.__getstate__()
    return Restored(lightgbm.Booster, {key: change(state.pop("_handle")), **state})


def array_item(name: bytes, place: int, value: int) -> Callable[[bytes], bytes]:
    """Set an item of the first 32-bit array of that name."""

    def change(content: bytes) -> bytes:
        start = content.index(name) + len(name)
        assert content[start : start + 5] == b"[$l#L"
        at = start + 13 + 4 * place
        return content[:at] + value.to_bytes(4, "big", signed=True) + content[at + 4 :]

    return change


def line(name: str, value: str) -> Callable[[str], str]:
    """Replace the first line of that name, and drop the sizes, which would tell."""

    def change(text: str) -> str:
        lines = [part for part in text.split("\n") if not part.startswith("tree_sizes=")]
        lines[next(index for index, part in enumerate(lines) if part.startswith(f"{name}="))] = f"{name}={value}"
        return "\n".join(lines)

    return change


FORGED: dict[str, Callable[[], Restored]] = {
    "xgboost child": lambda: xgboost_state(array_item(b"left_children", 0, 10**8)),
    "xgboost leaf": lambda: xgboost_state(array_item(b"left_children", 2, -(2**31))),
    "xgboost parent": lambda: xgboost_state(array_item(b"parents", 1, 10**8)),
    "xgboost feature": lambda: xgboost_state(array_item(b"split_indices", 0, 2**31 - 1)),
    "lightgbm child": lambda: lightgbm_state(line("left_child", "99999999 -2 -1")),
    "lightgbm feature": lambda: lightgbm_state(line("split_feature", "99999999 0 0")),
    "lightgbm classes": lambda: lightgbm_state(line("num_class", "1")),
    "lightgbm old key": lambda: lightgbm_state(line("num_class", "1"), "handle"),
    "lightgbm NUL": lambda: lightgbm_state(lambda text: text.replace("Tree=1", "Tree=1\0")),
    "lightgbm line ends": lambda: lightgbm_state(lambda text: text.replace("\nTree=1", "\rTree=1")),
    "lightgbm key twice": lambda: lightgbm_state(lambda text: text.replace("\nleft_child=", "\nleft_child=9\nleft_child=", 1)),
}
CRASHING = ("xgboost parent", "xgboost leaf", "lightgbm classes")
OPEN = """
import pickle, sys
import numpy as np
booster = pickle.load(open(sys.argv[1], "rb"))
x = np.random.default_rng(0).normal(size=(400, 4))
for _ in range(20):
    booster.predict(x, num_threads=1) if "lightgbm" in type(booster).__module__ else booster.inplace_predict(x)
"""


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("nested", [False, True])
def test_forged_boosters_in_pickles_never_reach_their_parser(
    name: str, nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled([FORGED[name]()] if nested else FORGED[name]()))
    check = check_file(path)
    assert check.unlisted == ()
    for kind in (xgboost.Booster, lightgbm.Booster):
        monkeypatch.setattr(kind, "__setstate__", lambda *_: pytest.fail("the parser was called"))
    with pytest.raises(InvalidModel):
        load_object(check)


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHING)
def test_the_forged_boosters_are_real(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled(FORGED[name]()))
    ended = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, timeout=120, check=False)
    assert ended.returncode < 0


def test_a_forged_booster_beside_an_inline_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump([np.arange(1000.0), np.array([1, None], dtype=object), 3], path, protocol=2)
    good = path.read_bytes()
    assert good.endswith(b"K\x03e.")
    path.write_bytes(good[:-2] + instructions(FORGED["lightgbm classes"]()) + b"e.")
    with pytest.raises(InvalidModel, match="classes"):
        load_object(check_file(path))


@pytest.mark.parametrize("handle", [3, b"x", "x", [1], {}])
@pytest.mark.parametrize("kind", [xgboost.Booster, lightgbm.Booster])
def test_states_of_another_form_are_refused(kind: type, handle: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    for state in ({"handle": handle, "_handle": handle}, ["x"], (None, {"handle": handle})):
        path.write_bytes(pickled(Restored(kind, state)))
        with pytest.raises(InvalidModel):
            load_object(check_file(path))


def test_a_second_state_is_refused(tmp_path: Path) -> None:
    good, bad = lightgbm_state(str), lightgbm_state(line("num_class", "1"))
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x02" + instructions(good) + pickle.dumps(bad.state, 2)[2:-1] + b"b.")
    with pytest.raises(InvalidModel, match="twice"):
        check_file(path)


def own_method() -> Restored:
    made = xgboost_state(bytes)
    return Restored(made.kind, made.state | {"save_raw": np.log1p})


UNUSABLE: dict[str, Callable[[], bytes]] = {
    "xgboost null": lambda: b"\x80\x02cxgboost.core\nBooster\n)\x81}X\x06\x00\x00\x00handleNsb.",
    "xgboost empty": lambda: b"\x80\x02cxgboost.core\nBooster\n)\x81}b.",
    "xgboost bare": lambda: b"\x80\x02cxgboost.core\nBooster\n)\x81.",
    "xgboost thrown away": lambda: b"\x80\x02cxgboost.core\nBooster\n)\x810K\x01.",
    "lightgbm null": lambda: b"\x80\x02clightgbm.basic\nBooster\n)\x81}X\x07\x00\x00\x00_handleNsb.",
    "lightgbm empty": lambda: b"\x80\x02clightgbm.basic\nBooster\n)\x81}b.",
    "lightgbm bare": lambda: b"\x80\x02clightgbm.basic\nBooster\n)\x81.",
    "a method of its own": lambda: pickled(own_method()),
}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", UNUSABLE)
def test_boosters_without_a_usable_state_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(UNUSABLE[name]())
    check = check_file(path)
    assert check.unlisted == ()
    with pytest.raises(InvalidModel):
        load_object(check)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_boosters_come_back_as_their_own_class(protocol: int, tmp_path: Path) -> None:
    models = (
        xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y),
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(X, Y),
    )
    for model in models:
        path = tmp_path / "m.pkl"
        path.write_bytes(pickle.dumps(model, protocol))
        loaded = load_object(check_file(path))
        assert type(loaded._Booster) is type(model._Booster)
        assert (pickle.loads(pickle.dumps(loaded)).predict(X) == model.predict(X)).all()
