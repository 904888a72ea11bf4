"""Trust by digest, code that a system file names, and paths that stay in its folder."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from holdfast.artifacts.code import call_code, load_code
from holdfast.artifacts.paths import resolve_inside
from holdfast.artifacts.trust import TrustStore, default_path, normal_digests
from holdfast.core.errors import ConfigurationError, InvalidModel, UnsafeFile

DIGEST = "ab" * 32
NOTHING = ["net.py", "net.py:value", "net.py:missing", "net.py:os.system", ":build", "net.py:", "none.py:f"]
MODULES = ["os:system", "subprocess:call", "builtins:eval", "posix:system", "shutil:rmtree", "antigravity:x"]
OUTSIDE = [
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "~/x",
    "C:\\x",
    "..\\secret",
    "\\\\host\\x",
    "out",
    "out/x",
    "loop",
    "a\0b",
]


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_the_list_lies_in_the_users_configuration(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_path() == configuration / "holdfast" / "trusted.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert default_path() == Path.home() / ".config" / "holdfast" / "trusted.json"


def test_digests_are_added_once_and_removed() -> None:
    store = TrustStore()
    assert store.digests() == frozenset()
    store.add(DIGEST.upper(), "model.pkl")
    store.add(f"sha256:{DIGEST}", "model.pkl")
    store.add("cd" * 32, "other.pkl")
    assert TrustStore().digests() == {DIGEST, "cd" * 32}
    assert TrustStore().digests(["ef" * 32]) == {DIGEST, "cd" * 32, "ef" * 32}
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert not list(store.path.parent.glob(".trusted-*"))
    store.remove(DIGEST[:8])
    assert TrustStore().digests() == {"cd" * 32}
    for wrong in (DIGEST, "cd", ""):
        with pytest.raises(ConfigurationError):
            store.remove(wrong)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "files": [{"sha256": "x"}]}', b"\xff", b"null"])
def test_a_malformed_list_is_said_to_be_one_and_trusts_nothing(content: bytes) -> None:
    store = TrustStore()
    store.path.parent.mkdir(parents=True)
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        store.digests()


def test_a_list_that_others_may_write_trusts_nothing() -> None:
    store = TrustStore()
    store.add(DIGEST, "m")
    store.path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="others may write"):
        store.digests()


def test_what_is_no_digest_is_refused() -> None:
    assert normal_digests([f"sha256 {DIGEST}"]) == {DIGEST}
    for wrong in ("abc", DIGEST + "0", "g" * 64, ""):
        with pytest.raises(ConfigurationError):
            normal_digests([wrong])


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    touch = f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).touch()\n"
    path.write_text(touch + "def build():\n    return 7\nvalue = 3\n")
    return path


@pytest.mark.claim("loop-10")
def test_code_runs_only_when_its_digest_is_trusted(net: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile) as caught:
        load_code("net.py:build", tmp_path, set(), "model.factory")
    assert digest_of(net) in str(caught.value)
    assert not (tmp_path / "marker").exists()
    code = load_code("net.py:build", tmp_path, {digest_of(net)}, "model.factory")
    assert call_code(code, "model.factory") == 7
    assert (tmp_path / "marker").exists()
    trusted = {digest_of(net)}
    net.write_text(net.read_text() + "# changed\n")
    with pytest.raises(UnsafeFile):
        load_code("net.py:build", tmp_path, trusted, "model.factory")


@pytest.mark.parametrize("reference", NOTHING)
def test_references_to_nothing_are_refused(reference: str, net: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_code(reference, tmp_path, {digest_of(net)}, "model.entry")


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("reference", MODULES)
def test_modules_are_found_without_importing_and_need_trust(reference: str, tmp_path: Path) -> None:
    with pytest.raises((UnsafeFile, ConfigurationError)):
        load_code(reference, tmp_path, set(), "model.entry")


def test_an_installed_module_runs_when_its_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "made_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text("def predict(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(UnsafeFile):
        load_code("made_package.models:predict", tmp_path, set(), "model.entry")
    code = load_code("made_package.models:predict", tmp_path, {digest_of(package / "models.py")}, "model.entry")
    assert code.function(3) == 3


def test_failing_code_is_an_error_of_the_model(tmp_path: Path) -> None:
    for text in ("raise ValueError('no')", "import nothing_there", "def f(:", "raise SystemExit(0)"):
        path = tmp_path / "bad.py"
        path.write_text(text)
        with pytest.raises(InvalidModel, match=r"bad\.py"):
            load_code("bad.py:f", tmp_path, {digest_of(path)}, "model.entry")


def test_paths_inside_are_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "m.pkl").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    assert resolve_inside(tmp_path, "a/b/m.pkl", "p") == (tmp_path / "a" / "b" / "m.pkl").resolve()
    assert resolve_inside(tmp_path, "./link/m.pkl", "p").name == "m.pkl"


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("given", [*OUTSIDE, "", " "])
def test_paths_that_lead_out_are_refused(given: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "x").write_text("x")
    (project / "out").symlink_to(tmp_path)
    (project / "loop").symlink_to(project / "loop")
    with pytest.raises(ConfigurationError) as caught:
        resolve_inside(project, given, "model.path")
    assert caught.value.exit_code == 2
    assert caught.value.where == "model.path"


def test_the_store_survives_being_written_twice_at_once() -> None:
    store, other = TrustStore(), TrustStore()
    for index in range(20):
        (store if index % 2 else other).add(f"{index:064x}", str(index))
    assert len(json.loads(store.path.read_text())["files"]) == 20
