"""Model files: malicious ones are refused and never run, the real libraries' own are let through and answer as before."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from holdfast.artifacts.allowlist import allowed_uses
from holdfast.artifacts.archives import unpack
from holdfast.artifacts.checking import check_file
from holdfast.artifacts.loading import find_listed, load_object
from holdfast.core.errors import HoldfastError, InvalidModel, UnsafeFile

X, Y = load_iris(return_X_y=True)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def payloads(marker: Path) -> dict[str, Any]:
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "subprocess": Call(subprocess.Popen, ["touch", str(marker)]),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, str(marker), "w"),
        "np.save": Call(np.save, str(marker), np.zeros(1)),
        "np.memmap": Call(np.memmap, str(marker), "u1", "w+", 0, 1),
        "joblib.dump": Call(joblib.dump, 1, str(marker)),
        "joblib.load": Call(joblib.load, str(marker)),
        "pandas": Call(pd.DataFrame.to_csv, pd.DataFrame({"a": [1]}), str(marker)),
        "estimator that calls": FunctionTransformer(os.system, kw_args={}),
        "nested": [{"a": (1, Call(os.system, touch))}],
        "in an object array": np.array([Call(os.system, touch)], dtype=object),
        "in a fitted model": attached(linear_model.LogisticRegression(max_iter=500).fit(X, Y), Call(os.system, touch)),
        "in a pipeline": make_pipeline(StandardScaler(), FunctionTransformer(subprocess.getoutput)),
    }


def attached(model: Any, payload: Any) -> Any:
    model.extra_ = payload
    return model


def packings(value: Any) -> dict[str, bytes]:
    plain = pickle.dumps(value)
    stream = io.BytesIO()
    joblib.dump(value, stream)
    array = io.BytesIO()
    np.save(array, np.array([value, None], dtype=object)[:1], allow_pickle=True)
    return {
        "pickle": plain,
        "protocol 2": pickle.dumps(value, 2),
        "protocol 0": pickle.dumps(value, 0),
        "joblib": stream.getvalue(),
        "zlib": zlib.compress(plain),
        "gzip": gzip.compress(plain),
        "bz2": bz2.compress(plain),
        "xz": lzma.compress(plain),
        "lzma": lzma.compress(plain, lzma.FORMAT_ALONE),
        "npy": array.getvalue(),
        "torch": torch_archive({"archive/data.pkl": pickle.dumps(value, 2)}),
        "torch, second pickle": torch_archive({"archive/data.pkl": b"\x80\x02}.", "archive/more.pkl": pickle.dumps(value, 2)}),
        "torch, hidden pickle": torch_archive({"archive/data.pkl": b"\x80\x02}.", "archive/extra/x": pickle.dumps(value, 2)}),
    }


def torch_archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", list(payloads(Path("x"))))
def test_malicious_files_are_refused_in_every_packing_and_nothing_runs(name: str, marker: Path, tmp_path: Path) -> None:
    for packing, content in packings(payloads(marker)[name]).items():
        path = tmp_path / "model.joblib"
        path.write_bytes(content)
        try:
            check = check_file(path)
        except InvalidModel:
            assert packing == "protocol 0" or packing.startswith("torch")
            continue
        assert check.unlisted, packing
        assert not check.allowed
        with pytest.raises(UnsafeFile) as caught:
            check.require()
        assert check.digest in str(caught.value)
        assert caught.value.exit_code == 4
        with pytest.raises(UnsafeFile):
            load_object(check)
    assert not marker.exists()


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", list(payloads(Path("x"))))
def test_the_loader_refuses_what_the_check_would_have_missed(name: str, marker: Path, tmp_path: Path) -> None:
    for packing in ("pickle", "joblib", "gzip", "npy"):
        path = tmp_path / "model.joblib"
        path.write_bytes(packings(payloads(marker)[name])[packing])
        blind = replace(check_file(path), unlisted=())
        with pytest.raises(HoldfastError):
            load_object(blind)
    assert not marker.exists()


def test_the_payloads_really_fire_without_the_check(marker: Path) -> None:
    for name in ("os.system", "open", "eval", "np.save"):
        pickle.loads(pickle.dumps(payloads(marker)[name]))
        saved = marker if marker.exists() else marker.with_suffix(".npy")
        assert saved.exists(), name
        saved.unlink()


def test_the_loader_runs_the_bytes_that_were_checked(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(naive_bayes.GaussianNB().fit(X, Y)))
    check = check_file(path)
    path.write_bytes(pickle.dumps(payloads(marker)["os.system"]))
    assert (load_object(check).predict(X)[:5] == 0).all()
    assert not marker.exists()


def test_a_trusted_digest_opens_a_file_and_one_other_byte_closes_it(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(payloads(marker)["os.system"]))
    digest = check_file(path).digest
    load_object(check_file(path, {digest}))
    assert marker.exists()
    path.write_bytes(path.read_bytes().replace(b"touch", b"trunc"))
    with pytest.raises(UnsafeFile):
        load_object(check_file(path, {digest}))


FRAME = pd.DataFrame({"kind": list("abc") * 50, "a": X[:, 0], "b": X[:, 1]})
MODELS: dict[str, Any] = {
    "forest": ensemble.RandomForestClassifier(20, criterion="entropy", max_depth=5),
    "boosting": ensemble.GradientBoostingClassifier(n_estimators=5, subsample=0.7),
    "histogram boosting": ensemble.HistGradientBoostingClassifier(max_iter=8, early_stopping=True, scoring="accuracy"),
    "isolated voting": ensemble.VotingClassifier(
        [("a", naive_bayes.GaussianNB()), ("b", svm.SVC(probability=True))], voting="soft"
    ),
    "stack": ensemble.StackingClassifier([("a", naive_bayes.GaussianNB())], linear_model.LogisticRegression(), cv=3),
    "bags": ensemble.BaggingClassifier(linear_model.SGDClassifier(loss="modified_huber"), 3),
    "calibrated": CalibratedClassifierCV(svm.LinearSVC(), cv=3),
    "network": neural_network.MLPClassifier((8,), max_iter=20),
    "neighbours": neighbors.KNeighborsClassifier(3, algorithm="ball_tree", metric="manhattan"),
    "search": GridSearchCV(make_pipeline(StandardScaler(), svm.SVC()), {"svc__C": [0.5, 1]}, cv=3),
    "logarithms": make_pipeline(FunctionTransformer(np.log1p), linear_model.LogisticRegression(max_iter=500)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_real_models_pass_and_answer_as_before(name: str, tmp_path: Path) -> None:
    model = MODELS[name].fit(X, np.array(["x", "y", "z"])[Y])
    stream = io.BytesIO()
    joblib.dump(model, stream)
    packed = io.BytesIO()
    joblib.dump(model, packed, compress=3)
    for content in (stream.getvalue(), packed.getvalue(), *(pickle.dumps(model, protocol) for protocol in (2, 4, 5))):
        path = tmp_path / "model"
        path.write_bytes(content)
        check = check_file(path)
        assert check.unlisted == ()
        assert (load_object(check).predict(X) == model.predict(X)).all()


def test_pipelines_on_frames_pass(tmp_path: Path) -> None:
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    model = make_pipeline(encode, ensemble.RandomForestClassifier(5)).fit(FRAME, Y)
    joblib.dump(model, tmp_path / "m.joblib")
    assert (load_object(check_file(tmp_path / "m.joblib")).predict(FRAME) == model.predict(FRAME)).all()


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_wrappers_of_boosters_pass(package: str, tmp_path: Path) -> None:
    module = pytest.importorskip(package)
    kind = module.XGBClassifier if package == "xgboost" else module.LGBMClassifier
    model = kind(n_estimators=4).fit(X, Y)
    for content in (pickle.dumps(model), pickle.dumps(model, 2)):
        (tmp_path / "m.pkl").write_bytes(content)
        assert (load_object(check_file(tmp_path / "m.pkl")).predict(X) == model.predict(X)).all()


def test_torch_state_dicts_pass_and_whole_modules_do_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    path = tmp_path / "m.pt"
    for value in (net.state_dict(), {"state_dict": net.state_dict(), "epoch": 1}, {"half": torch.zeros(2, dtype=torch.float16)}):
        torch.save(value, path)
        check = check_file(path)
        assert check.format == "torch"
        assert check.unlisted == ()
    torch.save(net, path)
    assert any("torch.nn" in name for name in check_file(path).unlisted)
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidModel, match="legacy"):
        check_file(path)
    torch.jit.save(torch.jit.script(net), path)
    assert check_file(path).unlisted == ("a torchscript program",)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compression_bombs_stop_early(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    bomb = compress(b"\x80\x04X" + bytes(300 << 20))
    assert len(bomb) < 1 << 20
    (tmp_path / "m.pkl").write_bytes(bomb)
    with pytest.raises(InvalidModel, match="zip bomb"):
        check_file(tmp_path / "m.pkl")


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deflated", torch_archive({"archive/data.pkl": b"\x80\x02}." + bytes(10**6)}, zipfile.ZIP_DEFLATED)),
        ("leaves its folder", torch_archive({"archive/data.pkl": b"\x80\x02}.", "archive/../../x": b""})),
        ("two folders", torch_archive({"archive/data.pkl": b"\x80\x02}.", "other/x": b""})),
        ("names that differ in case", torch_archive({"archive/data.pkl": b"\x80\x02}.", "archive/DATA.pkl": b"\x80\x02}."})),
        ("bytes before", b"PK\x03\x04" + bytes(100) + torch_archive({"archive/data.pkl": b"\x80\x02}."})),
        ("truncated", torch_archive({"archive/data.pkl": b"\x80\x02}." + bytes(1000)})[:-60]),
        ("two headers", torch_archive({"archive/data.pkl": b"\x80\x02}."}).replace(b"data.pkl", b"date.pkl", 1)),
    ],
)
def test_archives_that_readers_could_see_differently_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InvalidModel):
        check_file(tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Call(os.system, "true"), 2))
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    (tmp_path / "m.pt").write_bytes(stream.getvalue())
    with pytest.raises(InvalidModel, match="one name"):
        check_file(tmp_path / "m.pt")


NO_MODELS = [
    *(b"", b"\x80", b"\x80\x04", b"hello", b"import os\nos.system('x')\n", b"{}", b"\xff" * 100, b"\x08\x07\x12"),
    *(b"\x1f\x8b" + bytes(20), b"x\x9c" + bytes(20), b"PK\x03\x04", b"\x93NUMPY\x01\x00\x00\x00"),
    *(b"\x89HDF\r\n\x1a\n", b"GGUF" + bytes(20), b"tree\nversion=v4\n"),
]


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("content", NO_MODELS)
def test_what_is_no_model_gets_a_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        check_file(path)
    assert "model.joblib" in str(caught.value)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(naive_bayes.GaussianNB().fit(X, Y))
    for extra in (b"x", content, pickle.dumps(Call(os.system, "true"))):
        (tmp_path / "m.pkl").write_bytes(content + extra)
        with pytest.raises(InvalidModel, match="after the end"):
            check_file(tmp_path / "m.pkl")
        with pytest.raises(InvalidModel):
            unpack(zlib.compress(content) + extra, "m")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    joblib.dump(ensemble.RandomForestClassifier(2, max_depth=2).fit(X, Y), stream)
    content = stream.getvalue()
    for end in range(1, len(content) - 1, 97):
        (tmp_path / "m.pkl").write_bytes(content[:end])
        with pytest.raises(InvalidModel):
            check_file(tmp_path / "m.pkl")


def test_fitted_objects_that_point_outside_themselves_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    forest = ensemble.RandomForestClassifier(2, max_depth=3).fit(X, Y)
    state = forest.estimators_[0].tree_.__getstate__()
    for field, value in (("left_child", 10**6), ("feature", 4000)):
        broken = {**state, "nodes": state["nodes"].copy()}
        broken["nodes"][field][0] = value
        forest.estimators_[0].tree_.__setstate__(broken)
        path.write_bytes(pickle.dumps(forest))
        with pytest.raises(InvalidModel, match=r"outside|does not have"):
            load_object(check_file(path))
    for ensemble_of_trees in (ensemble.RandomForestClassifier(2), ensemble.GradientBoostingClassifier(n_estimators=2)):
        narrow = ensemble_of_trees.fit(X, Y)
        narrow.n_features_in_ = 2
        path.write_bytes(pickle.dumps(narrow))
        with pytest.raises(InvalidModel, match="more features"):
            load_object(check_file(path))
    machine = svm.SVC().fit(X, Y)
    machine._n_support = np.array([10**6, 1, 1], dtype=np.int32)
    path.write_bytes(pickle.dumps(machine))
    with pytest.raises(InvalidModel, match="support vectors"):
        load_object(check_file(path))
    boosted = ensemble.HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    boosted._predictors[0][0].nodes["left"][0] = 10**6
    path.write_bytes(pickle.dumps(boosted))
    with pytest.raises(InvalidModel, match="outside"):
        load_object(check_file(path))


def test_the_list_has_no_name_that_runs_its_arguments() -> None:
    packages = {name.split(":")[0].split(".")[0] for name in allowed_uses()}
    known = (
        "_codecs builtins collections copyreg datetime functools joblib lightgbm numpy pandas pyarrow scipy sklearn torch xgboost"
    )
    assert packages <= set(known.split())
    builtins = {name.split(":")[1] for name in allowed_uses() if name.startswith("builtins:")}
    assert not builtins & {
        "eval",
        "exec",
        "compile",
        "open",
        "__import__",
        "globals",
        "vars",
        "input",
        "breakpoint",
        "map",
        "type",
    }
    assert [name for name in allowed_uses() if name.startswith("joblib")] == ["joblib.numpy_pickle:NumpyArrayWrapper"]
    assert [name for name in allowed_uses() if name.startswith("functools")] == ["functools:partial"]
    for name in (
        "numpy:load",
        "numpy:memmap",
        "numpy:save",
        "numpy._core:_ufunc_reconstruct",
        "pandas:eval",
        "torch:load",
        "torch.hub:load",
    ):
        assert name not in allowed_uses()


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("sklearn.utils", "os.system"), ("numpy", "load"), ("joblib", "load")]
)
def test_the_unpickler_knows_the_same_list(module: str, name: str) -> None:
    with pytest.raises(UnsafeFile):
        find_listed(module, name)


def test_a_listed_name_may_be_used_in_its_recorded_ways_only(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x04cnumpy\nlog1p\nK\x01\x85R.")
    assert check_file(path).unlisted == ("numpy.log1p (call)",)
    path.write_bytes(b"\x80\x04csklearn.svm._classes\nSVC\nK\x01\x85R.")
    assert "call" in check_file(path).unlisted[0]


def test_known_methods_only() -> None:
    fetch = find_listed("builtins", "getattr")
    model = ensemble.HistGradientBoostingClassifier()
    assert fetch(model, "_raw_predict")
    for value, name in ((model, "fit"), (os, "system")):
        with pytest.raises(UnsafeFile):
            fetch(value, name)
