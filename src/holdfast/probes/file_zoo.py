"""Model files made on the spot: malicious ones with a harmless payload, and benign ones.

The payloads would create an empty marker file, or call with arguments that do nothing. Nothing here is ever opened; the files
are only shown to the check. Techniques: direct calls, each opcode that can call, names that are assembled or reached through
other modules, payloads inside real models, containers, damage, and false names.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ZooFile:
    """A file of the zoo: what it is, the name it comes under, and its bytes."""

    technique: str
    name: str
    content: bytes


class _Call:
    """An object whose pickle calls a function when it is opened."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def malicious_files(marker: Path) -> Iterator[ZooFile]:
    """Files that would create `marker`, or call something they should not, if they were opened."""
    command, expression, path = f"touch {marker}", f"open({str(marker)!r}, 'w').close()", str(marker)
    yield from _direct_calls(command, expression, path)
    yield from _opcodes(command)
    plain = _global(b"posix", b"system") + _text(command) + b"\x85R."
    yield from _containers(plain)
    yield from _inside_models(command, expression)
    yield from _damage(plain)


def benign_files() -> Iterator[ZooFile]:
    """Ordinary models in the formats that they are usually saved in."""
    import joblib

    models = _fitted()
    for name, model in models.items():
        for protocol in (2, 4, 5):
            content = pickle.dumps(model, protocol=protocol)
            yield ZooFile(technique=f"{name}, pickle protocol {protocol}", name=f"{name}.pkl", content=content)
        for compress in (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)):
            stream = io.BytesIO()
            joblib.dump(model, stream, compress=compress)
            how = compress[0] if isinstance(compress, tuple) else "plain"
            yield ZooFile(technique=f"{name}, joblib {how}", name=f"{name}.joblib", content=stream.getvalue())
    yield from _benign_torch()


def _direct_calls(command: str, expression: str, path: str) -> Iterator[ZooFile]:
    calls = [
        ("os", "system", command),
        ("posix", "system", command),
        ("nt", "system", command),
        ("os", "popen", command),
        ("os", "execv", path),
        ("subprocess", "getoutput", command),
        ("subprocess", "call", command),
        ("subprocess", "Popen", command),
        ("pty", "spawn", "true"),
        ("builtins", "eval", expression),
        ("builtins", "exec", expression),
        ("__builtin__", "eval", expression),
        ("builtins", "compile", expression),
        ("builtins", "__import__", "this"),
        ("builtins", "open", path),
        ("builtins", "getattr", path),
        ("importlib", "import_module", "this"),
        ("runpy", "run_path", path),
        ("runpy", "run_module", "this"),
        ("timeit", "timeit", expression),
        ("cProfile", "run", expression),
        ("pdb", "run", expression),
        ("code", "interact", "this"),
        ("ctypes", "CDLL", "libm.so.6"),
        ("webbrowser", "open", "about:blank"),
        ("shutil", "rmtree", f"{path}.absent"),
        ("pickle", "loads", "N."),
        ("_pickle", "loads", "N."),
        ("marshal", "loads", "N"),
        ("types", "FunctionType", "this"),
        ("operator", "methodcaller", "system"),
        ("operator", "attrgetter", "system"),
        ("functools", "partial", "system"),
        ("numpy", "load", path),
        ("numpy", "fromfile", path),
        ("joblib", "load", path),
        ("joblib.numpy_pickle", "load", path),
        ("torch", "load", path),
        ("torch.hub", "load", path),
        ("pandas", "read_pickle", path),
        ("pandas.io.pickle", "read_pickle", path),
        ("sklearn.utils._testing", "set_random_state", path),
        ("pip", "main", "--version"),
        ("logging.config", "fileConfig", path),
        ("yaml", "unsafe_load", "a: 1"),
        ("holdfast.cli.main", "main", "--version"),
    ]
    for module, name, argument in calls:
        content = _global(module.encode(), name.encode()) + _text(argument) + b"\x85R."
        yield ZooFile(technique=f"calls {module}.{name}", name="model.pkl", content=content)


def _opcodes(command: str) -> Iterator[ZooFile]:
    word = command.encode()
    words = b"](" + b"".join(_text(part) for part in command.split(" ", 1)) + b"e"
    stack_global = _short("posix") + _short("system") + b"\x93" + _text(command) + b"\x85R."
    variants = {
        "protocol 0": b"cposix\nsystem\n(V" + word + b"\ntR.",
        "INST": b"(V" + word + b"\niposix\nsystem\n.",
        "OBJ": b"\x80\x02(cposix\nsystem\n" + _text(command) + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + words + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + _short("subprocess") + _short("Popen") + b"\x93" + words + b"\x85}\x92.",
        "STACK_GLOBAL": b"\x80\x04" + stack_global,
        "STACK_GLOBAL in a frame": b"\x80\x04\x95" + struct.pack("<Q", len(stack_global)) + stack_global,
        "name through another module": b"\x80\x04"
        + _short("shutil")
        + _short("os.system")
        + b"\x93"
        + _text(command)
        + b"\x85R.",
        "names from the memo": b"\x80\x04"
        + _short("posix")
        + b"\x940"
        + _short("system")
        + b"\x940h\x00h\x01\x93"
        + _text(command)
        + b"\x85R.",
        "function from the memo": b"\x80\x02cposix\nsystem\nq\x010h\x01" + _text(command) + b"\x85R.",
        "call inside a list": b"\x80\x02]cposix\nsystem\n" + _text(command) + b"\x85Ra.",
        "call as a key": b"\x80\x02}cposix\nsystem\n" + _text(command) + b"\x85RNs.",
        "call, then dropped": b"\x80\x02cposix\nsystem\n" + _text(command) + b"\x85R0N.",
        "state that a class executes": b"\x80\x02ccode\nInteractiveInterpreter\n)\x81}" + _text("locals") + b"Nsb.",
        "extension code": b"\x80\x02\x82\x01.",
        "persistent id": b"\x80\x02" + _text(command) + b"Q.",
        "second pickle behind the first": b"\x80\x02N.\x80\x02cposix\nsystem\n" + _text(command) + b"\x85R.",
        "line breaks in a name": b"\x80\x04" + _short("posix\n") + _short("system") + b"\x93" + _text(command) + b"\x85R.",
    }
    for technique, content in variants.items():
        yield ZooFile(technique=f"opcodes: {technique}", name="model.pkl", content=content)


def _containers(plain: bytes) -> Iterator[ZooFile]:
    packed = {
        "zlib": zlib.compress(plain),
        "gzip": gzip.compress(plain, mtime=0),
        "bz2": bz2.compress(plain),
        "lzma": lzma.compress(plain, format=lzma.FORMAT_ALONE),
        "xz": lzma.compress(plain),
        "gzip twice": gzip.compress(gzip.compress(plain, mtime=0), mtime=0),
        "two gzip members": gzip.compress(plain[:9], mtime=0) + gzip.compress(plain[9:], mtime=0),
    }
    for technique, content in packed.items():
        yield ZooFile(technique=f"container: {technique}", name="model.joblib", content=content)
    yield ZooFile(technique="container: object array", name="model.npy", content=_object_array(plain))
    yield ZooFile(
        technique="container: archive of object arrays", name="model.npz", content=_zip({"a.npy": _object_array(plain)})
    )
    parts = {"archive/data.pkl": plain, "archive/version": b"3\n", "archive/byteorder": b"little"}
    yield ZooFile(technique="container: torch", name="model.pt", content=_zip(parts))
    yield ZooFile(technique="container: torch, deflated", name="model.pt", content=_zip(parts, zipfile.ZIP_DEFLATED))
    hidden = {**parts, "archive/data.pkl": b"\x80\x02}.", "archive/constants.pkl": plain}
    yield ZooFile(technique="container: torch, payload in constants", name="model.pt", content=_zip(hidden))
    yield ZooFile(technique="container: torch, two of one name", name="model.pt", content=_doubled(plain))
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    legacy = magic + pickle.dumps(1001, protocol=2) + pickle.dumps({"little_endian": True}, protocol=2) + plain
    yield ZooFile(technique="container: legacy torch", name="model.pth", content=legacy)
    for name in ("model.onnx", "model.json", "model.safetensors", "model.txt", "model.ubj"):
        yield ZooFile(technique=f"false name: pickle called {name}", name=name, content=plain)


def _inside_models(command: str, expression: str) -> Iterator[ZooFile]:
    import os

    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    x, y = _rows()
    model = LogisticRegression().fit(x, y)
    model.callback_ = _Call(os.system, command)
    stream = io.BytesIO()
    joblib.dump(model, stream)
    yield ZooFile(technique="inside a model: attribute, joblib", name="model.joblib", content=stream.getvalue())
    yield ZooFile(technique="inside a model: attribute, pickle", name="model.pkl", content=pickle.dumps(model))
    functions: dict[str, Callable[..., Any]] = {"os.system": os.system, "eval": eval, "exec": exec, "getattr": getattr}
    for name, function in functions.items():
        steps = make_pipeline(FunctionTransformer(function), LogisticRegression())
        yield ZooFile(technique=f"inside a model: transformer that calls {name}", name="model.pkl", content=pickle.dumps(steps))
    coefficients = LogisticRegression().fit(x, y)
    coefficients.coef_ = np.array([_Call(eval, expression)], dtype=object)
    yield ZooFile(technique="inside a model: object array of weights", name="model.pkl", content=pickle.dumps(coefficients))


def _damage(plain: bytes) -> Iterator[ZooFile]:
    archive = _zip({"archive/data.pkl": plain, "archive/version": b"3\n"})
    unfinished = plain[:-1]
    damaged = {
        "payload, then the end is missing": unfinished,
        "payload, then rubbish": unfinished + b"\xff\xff\xff\xff",
        "payload, then a name that is no text": unfinished + b"c\xff\xfe\nx\n.",
        "rubbish before the archive": b"\x00" * 64 + archive,
        "archive without its directory": archive[: archive.index(b"PK\x01\x02")],
        "archive cut short": archive[:-10],
        "archive with false checksums": archive.replace(struct.pack("<I", zlib.crc32(plain)), b"\0\0\0\0"),
        "archive flagged as encrypted": _flagged(archive),
        "gzip cut short": gzip.compress(plain, mtime=0)[:-6],
        "pickle behind a comment of spaces": b"   " + plain,
    }
    for technique, content in damaged.items():
        yield ZooFile(
            technique=f"damage: {technique}", name="model.pt" if "archive" in technique else "model.pkl", content=content
        )


def _fitted() -> dict[str, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    x, y = _rows()
    prepare = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), (StandardScaler(), [1, 2]))
    models = {
        "forest": RandomForestClassifier(3, random_state=0),
        "tree": DecisionTreeClassifier(random_state=0),
        "boosting": GradientBoostingClassifier(n_estimators=3, random_state=0),
        "histogram boosting": HistGradientBoostingClassifier(max_iter=3, random_state=0),
        "logistic": LogisticRegression(),
        "support vectors": SVC(),
        "neighbours": KNeighborsClassifier(),
        "naive Bayes": GaussianNB(),
        "network": MLPClassifier((4,), max_iter=300, tol=1.0, random_state=0),
        "pipeline": make_pipeline(prepare, LogisticRegression()),
    }
    return {name: model.fit(x, y) for name, model in models.items()}


def _benign_torch() -> Iterator[ZooFile]:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return
    import torch

    for name, module in {
        "linear": torch.nn.Linear(3, 2),
        "convolution": torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)),
    }.items():
        stream = io.BytesIO()
        torch.save(module.state_dict(), stream)
        yield ZooFile(technique=f"{name}, torch state dict", name=f"{name}.pt", content=stream.getvalue())


def _rows() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3))
    x[:, 0] = draw.integers(3, size=60)
    return x, np.array(["no", "yes"])[(x[:, 1] > 0).astype(int)]


def _global(module: bytes, name: bytes) -> bytes:
    return b"\x80\x02c" + module + b"\n" + name + b"\n"


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _short(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def _object_array(payload: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def _zip(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return stream.getvalue()


def _doubled(payload: bytes) -> bytes:
    """An archive whose two entries have one name: readers differ on which they take."""
    import warnings

    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), payload)
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), b"\x80\x02}.")
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")
    return stream.getvalue()


def _flagged(archive: bytes) -> bytes:
    """The archive with the flag of encryption set in local and central headers; some readers ignore it."""
    changed = bytearray(archive)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = archive.find(sign)
        while place >= 0:
            changed[place + offset] |= 1
            place = archive.find(sign, place + 4)
    return bytes(changed)
