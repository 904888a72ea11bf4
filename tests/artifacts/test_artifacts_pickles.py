"""The symbolic pickle machine: sees what the real one would resolve, runs nothing, and refuses what it cannot decide."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from holdfast.artifacts.checking import unlisted_uses
from holdfast.artifacts.pickles import walk_pickle
from holdfast.core.errors import InvalidModel

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3


class Inert:
    """Stands for any global: may be called, built and filled, and does nothing."""

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = append

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __reduce__(self) -> Any:
        raise TypeError

    __hash__ = object.__hash__


class Recorder(pickle.Unpickler):
    """The real machine, with every global replaced by `Inert`, written down as it is resolved."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.seen: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.seen.add(f"{module}:{name}".replace("__builtin__", "builtins").replace("copy_reg", "copyreg"))
        return Inert


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value", [RandomForestClassifier(3).fit(X, Y), make_pipeline(StandardScaler()).fit(X), {"a": [1, {2, 3}]}]
)
def test_globals_are_those_that_the_disassembler_sees(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    recorder = Recorder(content)
    recorder.load()
    walk = walk_pickle(content, "m")
    assert {key.replace("builtins:long", "builtins:int") for key in recorder.seen} == set(walk.uses)
    assert walk.end == len(content)
    assert walk.opcodes == sum(1 for _ in pickletools.genops(content))


FRAGMENTS = [
    b"cos\nsystem\n",
    b"cbuiltins\nlist\n",
    b"ccollections\nOrderedDict\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"\x8c\x02os\x94\x8c\x06getcwd\x94\x93\x94",
    b"\x8c\x02os",
    b"\x8c\x06system",
    b"\x93",
    b"(",
    b"t",
    b")",
    b"\x85",
    b"\x86",
    b"R",
    b"\x81",
    b"b",
    b"}",
    b"]",
    b"a",
    b"e",
    b"s",
    b"u",
    b"d",
    b"l",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x94",
    b"q\x00",
    b"h\x00",
    b"q\x01",
    b"h\x01",
    b"p0\n",
    b"g0\n",
    b"r\x02\x00\x00\x00",
    b"j\x02\x00\x00\x00",
    b"0",
    b"1",
    b"2",
    b"N",
    b"\x88",
    b"K\x05",
    b"I01\n",
    b"I7\n",
    b"F1.5\n",
    b"Vtext\n",
    b"\x8a\x01\x05",
    b"C\x01a",
    b"\x95\x04\x00\x00\x00\x00\x00\x00\x00",
    b"\x95\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x80\x04",
    b".",
]


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=25))
def test_what_the_real_machine_resolves_the_symbolic_one_has_seen(fragments: list[bytes]) -> None:
    content = b"\x80\x04" + b"".join(fragments) + b"."
    try:
        walk = walk_pickle(content, "m")
    except InvalidModel:
        return
    recorder = Recorder(content[: walk.end])
    with contextlib.suppress(Exception):
        recorder.load()
    assert recorder.seen <= set(walk.uses)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_models_never_resolve_what_was_not_seen(data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(make_pipeline(StandardScaler()).fit(X), 4))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        walk = walk_pickle(bytes(content), "m")
    except InvalidModel:
        return
    recorder = Recorder(bytes(content))
    with contextlib.suppress(Exception):
        recorder.load()
    assert recorder.seen <= set(walk.uses)


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


SYSTEM = b"cos\nsystem\n"
UNDECIDABLE = {
    "computed module name": b"\x80\x04" + SYSTEM + b"\x8c\x01x\x85R\x8c\x06system\x93.",
    "module name that is bytes": b"\x80\x04C\x02os\x8c\x06system\x93.",
    "extension code": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02K\x01Q.",
    "text persistent id": b"Pid\n.",
    "instance by mark": b"(ios\nsystem\n.",
    "object by mark": b"(cos\nsystem\no.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "python 2 string": b"U\x01a.",
    "protocol 9": b"\x80\x09N.",
    "arguments in a list": b"\x80\x04" + SYSTEM + b"]R.",
    "state for a global": b"\x80\x04" + SYSTEM + b"}b.",
    "item for a text": b"\x80\x04\x8c\x01xK\x01a.",
    "items for a list": b"\x80\x04](K\x01K\x01u.",
    "missing mark": b"\x80\x04K\x01t.",
    "empty stack": b"\x80\x04.",
    "left-over values": b"\x80\x04NN.",
    "missing memo": b"\x80\x04h\x07.",
    "no end": b"\x80\x04N",
    "frame beyond the end": b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00N.",
    "frame that ends inside an instruction": b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00\x8c\x04abcd.",
    "frame in a frame": b"\x80\x04\x95\x0d\x00\x00\x00\x00\x00\x00\x00\x95\x02\x00\x00\x00\x00\x00\x00\x00N.",
    "text longer than the file": b"\x80\x04X\xff\xff\xff\x7fa.",
    "bytes of 8 EiB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "duplicated mark": b"\x80\x04(20.",
    "bytearray of a size": b"\x80\x04cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    "bytes of a size": b"\x80\x04cbuiltins\nbytes\nJ\x00\x00\x00\x7f\x85R.",
    "array of a size": b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x7f\x85C\x01b\x87R.",
}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", UNDECIDABLE)
def test_what_cannot_be_decided_is_refused(name: str) -> None:
    with pytest.raises(InvalidModel):
        walk_pickle(UNDECIDABLE[name], "m")


LISTED = b"\x80\x04cfunctools\npartial\ncsklearn.utils.validation\ncheck_array\n\x85R"
ARGUMENTS = {
    "another base class": b"\x80\x02ccopy_reg\n_reconstructor\ncnumpy\nndarray\ncbuiltins\nint\nK\x01\x87R.",
    "codec": b"\x80\x04c_codecs\nencode\n\x8c\x01a\x8c\x05rot13\x86R.",
    "partial": b"\x80\x04cfunctools\npartial\ncnumpy\nlog1p\n\x85R.",
    "getattr": b"\x80\x04cbuiltins\ngetattr\ncnumpy\nndarray\n\x8c\x06tofile\x86R.",
    "call of a result": b"\x80\x04ccollections\nOrderedDict\n)R)R.",
    "a swapped state of partial": LISTED + b"(cnumpy\nlog1p\n)}Ntb.",
}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_listed_functions_may_not_be_called_with_anything(name: str) -> None:
    assert unlisted_uses(walk_pickle(ARGUMENTS[name], "m"))
    assert not unlisted_uses(walk_pickle(LISTED + b".", "m"))


def dumped(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(1000.0),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array([], dtype="f4"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2020-01-01"], dtype="M8[ns]"),
        np.array([{"a": np.arange(5)}, "b"], dtype=object),
        [np.arange(3), {"x": np.ones((2, 2)), "y": [np.array(["text"])]}],
    ],
)
def test_inline_arrays_are_passed_by_their_own_size(value: Any) -> None:
    content = dumped(value)
    assert walk_pickle(content, "m").end == len(content)


@pytest.mark.claim("loop-10")
def test_a_payload_after_and_inside_inline_arrays_is_seen(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "marker",)

    for value in (
        [np.arange(100), Payload()],
        np.array([Payload(), np.arange(9)], dtype=object),
        [np.array([[Payload()]], dtype=object)],
    ):
        assert any(key.startswith("pathlib") for key in walk_pickle(dumped(value), "m").uses)
    assert not (tmp_path / "marker").exists()


@pytest.mark.claim("loop-10")
def test_an_inline_array_that_claims_ten_gigabytes_is_refused() -> None:
    content = dumped(np.zeros(7))
    shape = b"shape\x94K\x07\x85\x94"
    assert shape in content
    larger = content.replace(shape, b"shape\x94\x8a\x05" + struct.pack("<q", 1_250_000_000)[:5] + b"\x85\x94")
    frame = content.index(b"\x95") + 1
    size = struct.unpack("<Q", larger[frame : frame + 8])[0] + len(larger) - len(content)
    larger = larger[:frame] + struct.pack("<Q", size) + larger[frame + 8 :]
    with pytest.raises(InvalidModel, match="claims 10,000,000,000 bytes"):
        walk_pickle(larger, "m")


def test_an_array_whose_type_contradicts_itself_is_refused() -> None:
    content = dumped(np.array([1.0, 2.0]))
    assert b"\x8c\x02f8" in content
    with pytest.raises(InvalidModel):
        walk_pickle(content.replace(b"\x8c\x02f8", b"\x8c\x02O8"), "m")


def test_an_endless_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.artifacts.pickles.MOST_OPCODES", 1000)
    with pytest.raises(InvalidModel, match="more than 1,000"):
        walk_pickle(b"\x80\x04" + b"N0" * 1000 + b"N.", "m")


def test_shared_references_are_not_unfolded() -> None:
    bomb: Any = []
    for _ in range(200):
        bomb = [bomb, bomb]
    assert walk_pickle(pickle.dumps(bomb), "m").opcodes < 3000
