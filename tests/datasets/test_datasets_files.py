"""Reading data files: what is in them comes out, and hostile ones get a clear error with the row."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import InvalidData
from holdfast.datasets.array_files import read_npz
from holdfast.datasets.images import read_image_folder
from holdfast.datasets.reading import identify_data, read_contents
from holdfast.datasets.table_files import read_arrow, read_csv, read_parquet

FRAME = pd.DataFrame({"size": [1.5, None, 3.0], "count": [1, 2, 3], "kind": ["a", 'b,\n"c"', None], "flag": [True, False, True]})


def test_csv_reads_as_pandas_does() -> None:
    frame = read_csv(FRAME.to_csv(index=False).encode(), "d.csv")
    pd.testing.assert_frame_equal(frame, pd.read_csv(io.StringIO(FRAME.to_csv(index=False))))
    assert read_csv("a;b\n1;2\n".encode("utf-8-sig"), "d.csv").columns.tolist() == ["a", "b"]
    assert read_csv(b"a\tb\r\n1\t2\r\n\r\n", "d.csv").shape == (1, 2)
    assert read_csv(b"a;;,b\n1,2\n", "d.csv").columns.tolist() == ["a;;", "b"]
    assert read_csv(b"a;b\n1,5;2,5\n", "d.csv").columns.tolist() == ["a", "b"]


@given(
    st.lists(
        st.text(alphabet=st.characters(blacklist_characters="\0\r", codec="utf-8"), min_size=1),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_names_survive_as_text(names: list[str]) -> None:
    named = [name for name in names if name.strip()]
    if len(named) != len(names) or named[0].startswith("\ufeff"):
        return
    content = pd.DataFrame([[1] * len(named)], columns=named).to_csv(index=False).encode()
    assert read_csv(content, "d.csv").columns.tolist() == named


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("content", "problem", "where"),
    [
        (b"", "empty", "d.csv"),
        (b" \n\n", "empty", "d.csv"),
        (b"a,b\n", "no rows", "d.csv"),
        (b"a,b\n1,2\n3\n", "1 fields where the header has 2", "line 3"),
        (b"a,b\n1,2\n3,4,5\n", "3 fields", "line 3"),
        (b"a,b\n1,\xe9\n", "0xe9 is not UTF-8", "line 2"),
        ("a,b\n1,2\n".encode("utf-16"), "NUL byte", "line 1"),
        (b"a,b\n1,2\n3,\x00\n", "NUL byte", "line 3"),
        (b"a,a\n1,2\n", "two columns are named 'a'", "header"),
        (b"a,\n1,2\n", "column 2 has no name", "header"),
        (b'a,b\n1,"2\n', "not CSV", "line 2"),
        (b'a,b\n1,"2"3\n', "not CSV", "line 2"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "field larger", "line 2"),
        (b",".join(b"c%d" % i for i in range(20_001)) + b"\n", "20,001 columns", "d.csv"),
    ],
)
def test_hostile_csv_gets_a_clear_error_with_its_row(content: bytes, problem: str, where: str) -> None:
    with pytest.raises(InvalidData) as caught:
        read_csv(content, "d.csv")
    assert problem in caught.value.what
    assert where in str(caught.value.where)


@pytest.mark.claim("loop-10")
def test_formulas_and_html_in_names_and_cells_stay_text() -> None:
    names = ["=cmd|'/C calc'!A0", "<script>alert(1)</script>", "@SUM(1+1)", "normal"]
    rows = [["=1+1", "<b>", "-2+3", "+1"]]
    frame = read_csv(pd.DataFrame(rows, columns=names).to_csv(index=False).encode(), "d.csv")
    assert frame.columns.tolist() == names
    assert frame.iloc[0, :3].tolist() == ["=1+1", "<b>", "-2+3"]


def test_parquet_and_arrow_read_the_same() -> None:
    pa = pytest.importorskip("pyarrow")
    frame = FRAME.assign(group=pd.Categorical(["x", "y", "x"]), row=[7, 5, 9])
    parquet = io.BytesIO()
    frame.set_index("row").to_parquet(parquet)
    first = read_parquet(parquet.getvalue(), "d.parquet")
    feather = io.BytesIO()
    frame.to_feather(feather)
    second = read_arrow(feather.getvalue(), "d.feather")
    stream = io.BytesIO()
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    third = read_arrow(stream.getvalue(), "d.arrow")
    pd.testing.assert_frame_equal(second, third)
    pd.testing.assert_frame_equal(first[second.columns], second)
    assert isinstance(second["group"].dtype, pd.CategoricalDtype)


@pytest.mark.claim("loop-10")
def test_hostile_parquet_and_arrow_are_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = io.BytesIO()
    FRAME.to_parquet(parquet)
    content = parquet.getvalue()
    for broken in (content[:-20], content[:60], b"PAR1" + bytes(50) + b"PAR1", content[:20] + b"\xff" * 40 + content[60:]):
        with pytest.raises(InvalidData):
            read_parquet(broken, "d.parquet")
    for broken in (b"ARROW1\0\0" + bytes(100), b"\xff\xff\xff\xff" + struct.pack("<i", 10**9), b"\xff\xff\xff\xff"):
        with pytest.raises(InvalidData):
            read_arrow(broken, "d.arrow")
    nested = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"a": [[1, 2]]}), nested)
    with pytest.raises(InvalidData, match="nested"):
        read_parquet(nested.getvalue(), "d.parquet")


@pytest.mark.claim("loop-10")
def test_a_parquet_bomb_is_refused_before_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    stream = io.BytesIO()
    pd.DataFrame({"a": np.zeros(2_000_000)}).to_parquet(stream, compression="zstd", use_dictionary=False)
    monkeypatch.setattr("holdfast.datasets.table_files.MOST_BYTES", 1 << 20)
    with pytest.raises(InvalidData, match="unpacks to more"):
        read_parquet(stream.getvalue(), "d.parquet")


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@given(st.sampled_from(["f4", "f8", "i8", "u1", "?", "U5", ">f4"]), st.lists(st.integers(0, 4), max_size=3), st.booleans())
def test_arrays_come_back_as_they_were(kind: str, shape: list[int], fortran: bool) -> None:
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
    values = np.asfortranarray(values) if fortran else values
    found = read_npz(npz(a=values), "d.npz")["a"]
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def claimed(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = b"12345678") -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
    return zipped({"x.npy": member.getvalue() + content})


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.claim("loop-10")
def test_a_header_that_claims_ten_gigabytes_is_refused() -> None:
    with pytest.raises(InvalidData, match="claims 10,000,000,000 bytes"):
        read_npz(claimed((1_250_000_000,)), "d.npz")


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (npz(x=np.array([{}, "a"], dtype=object)), "Python objects"),
        (claimed((2,)), "claims 16 bytes"),
        (claimed((-1,)), "shape"),
        (claimed((1,), "|O"), "Python objects"),
        (zipped({"x.npy": b"\x93NUMPY\x01\x00\xff\xff{"}), "header"),
        (zipped({"x.npy": b"not an array"}), "header"),
        (zipped({"run.py": b"import os"}), "no array"),
        (b"PK\x03\x04" + bytes(40), "not an NPZ"),
        (npz(x=np.arange(9))[:-30], "not an NPZ"),
    ],
)
def test_hostile_npz_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidData, match=problem):
        read_npz(content, "d.npz")


@pytest.mark.claim("loop-10")
def test_a_zip_bomb_is_refused_by_what_it_claims() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(InvalidData, match="zip bomb"):
        read_npz(stream.getvalue(), "d.npz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    for label, shade in (("cat", 0), ("dog", 255)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((4, 6), shade, dtype=np.uint8)
            pixels[0, number] = 51
            image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    return tmp_path / "pictures"


def test_pictures_become_an_array(folder: Path) -> None:
    read = read_image_folder(folder, "pictures")
    assert read.x.shape == (4, 1, 4, 6)
    assert read.x.dtype == np.float32
    assert (read.x[0, 0, 0, 0], read.x[2, 0, 1, 1]) == (np.float32(0.2), 1.0)
    assert read.labels.tolist() == ["cat", "cat", "dog", "dog"]
    assert read_image_folder(folder, "pictures").digest == read.digest
    (folder / "cat" / "0.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    assert read_image_folder(folder, "pictures").digest != read.digest


def test_one_colour_picture_makes_all_three_channels(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.full((4, 6, 3), [255, 0, 0], dtype=np.uint8)).save(folder / "dog" / "2.png")
    x = read_image_folder(folder, "pictures").x
    assert x.shape == (5, 3, 4, 6)
    assert x[4, :, 0, 0].tolist() == [1, 0, 0]
    assert (x[0, 0] == x[0, 2]).all()


@pytest.mark.claim("loop-10")
def test_hostile_picture_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    bad = folder / "dog" / "bad.png"
    for content, problem in ((b"no picture", "decoded"), ((folder / "dog" / "0.png").read_bytes()[:40], "decoded")):
        bad.write_bytes(content)
        with pytest.raises(InvalidData, match=problem):
            read_image_folder(folder, "pictures")
    image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(bad)
    with pytest.raises(InvalidData, match="5 x 5 pixels"):
        read_image_folder(folder, "pictures")
    bomb = io.BytesIO()
    image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    bad.write_bytes(bomb.getvalue())
    with pytest.raises(InvalidData, match=r"pixels|DecompressionBomb"):
        read_image_folder(folder, "pictures")
    bad.unlink()
    (tmp_path / "outside.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    bad.symlink_to(tmp_path / "outside.png")
    with pytest.raises(InvalidData, match="no picture"):
        read_image_folder(folder, "pictures")
    bad.unlink()
    (folder / "loose.txt").write_text("x")
    with pytest.raises(InvalidData, match="class folder"):
        read_image_folder(folder, "pictures")


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(tmp_path / "really.csv")
    assert read_contents(tmp_path / "really.csv", "really.csv").kind == "table"
    assert identify_data(b"a,b\n") == "csv"
    for content, kind in ((b"\x80\x04", "pickle"), (b"\x93NUMPY", "npy"), (b"\x89PNG", "unknown binary")):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(InvalidData, match=kind):
            read_contents(tmp_path / "x.csv", "x.csv")
    with pytest.raises(InvalidData, match="no such file"):
        read_contents(tmp_path / "none.csv", "none.csv")
