"""Files are read only if they are files, within their bounds, and written whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from holdfast.core import files
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.files import open_file, read_file, read_if_present, write_bytes, write_text


@pytest.fixture(params=["pipe", "socket", "folder", "device", "link to a pipe"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something at a path that is no regular file."""
    path = tmp_path / "there"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("there")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "device":
        return Path("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    return path


@pytest.mark.claim("loop-10")
def test_what_is_no_file_is_refused_at_once(special: Path) -> None:
    for read in (open_file, lambda path: read_if_present(path, 10), lambda path: read_file(path, 10)):
        with pytest.raises(ConfigurationError, match="not a file") as caught:
            read(special)
        assert caught.value.where == str(special)


def test_what_is_no_file_is_not_replaced(special: Path) -> None:
    before = special.stat()
    with pytest.raises(ConfigurationError, match="not a file"):
        write_bytes(special, b"x")
    assert special.stat() == before


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 2000)
    assert read_file(path, 2000) == b"x" * 2000
    with pytest.raises(ConfigurationError, match="larger than 1,999 bytes"):
        read_file(path, 1999)
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(InvalidData, match="data: larger than 4 GiB"):
        read_file(path, 4 << 30, error=InvalidData, where="data")


def test_a_file_that_tells_a_smaller_size_than_it_has_is_refused() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("needs a file that tells no size")
    with pytest.raises(ConfigurationError, match="grew"):
        read_file(path, 1 << 20)


@pytest.mark.parametrize("name", ["none", "none/below", "f/below"])
def test_what_is_not_there_is_told_from_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert read_if_present(tmp_path / name, 10) is None
    with pytest.raises(ConfigurationError, match="no such file"):
        read_file(tmp_path / name, 10)


@pytest.mark.parametrize("name", ["loop", "a\0b", "x" * 300])
def test_paths_that_cannot_be_followed_are_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_if_present(tmp_path / name, 10)
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_bytes(tmp_path / name / "file", b"x")


def test_no_handle_is_left_open(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("needs a list of open files")
    os.mkfifo(tmp_path / "pipe")
    before = len(list(handles.iterdir()))
    for _ in range(5):
        with pytest.raises(ConfigurationError):
            open_file(tmp_path / "pipe")
    assert len(list(handles.iterdir())) == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "f"
    write_text(path, "old")
    for failing, error in (("fsync", OSError(28, "No space left on device")), ("fdopen", KeyboardInterrupt())):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, failing, lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            with pytest.raises(ConfigurationError if isinstance(error, OSError) else KeyboardInterrupt):
                write_text(path, "new")
        assert path.read_text() == "old"
        assert list(path.parent.iterdir()) == [path]


def test_readers_of_the_old_file_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")
    with path.open("rb") as held:
        write_bytes(path, b"new")
        assert (held.read(), path.read_bytes()) == (b"old", b"new")


def test_permissions_are_kept_follow_the_umask_or_are_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new", b"")
        write_bytes(tmp_path / "own" / "private", b"", private=True)
    finally:
        os.umask(old)
    (tmp_path / "kept").touch(mode=0o600)
    write_bytes(tmp_path / "kept", b"")
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "own", "own/private", "kept")}
    assert modes == {"new": 0o640, "own": 0o700, "own/private": 0o600, "kept": 0o600}


def test_text_of_any_kind_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "ü\ud800")
    assert (tmp_path / "f").read_bytes() == b"\xc3\xbc\\ud800"
