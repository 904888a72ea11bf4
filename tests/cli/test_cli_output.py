"""Hostile names never reach the terminal as they are, whatever the command; errors have one form, also as JSON."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.tree import DecisionTreeClassifier

from holdfast.cli import main
from holdfast.cli.output import print_error
from holdfast.cli.progress import Watcher
from holdfast.core.errors import ConfigurationError

EVIL = "x\x1b[2J\x1b]8;;http://evil\x1b\\\x9b5m\rPASS\u202eflip[bold]:x:"
"""Clears the screen, opens a link, writes over the line, turns the text around, and is markup."""
WRITTEN = "x\u202eflip[bold]:x:"
"""What of it a system file may hold."""
FILE = EVIL.replace("/", "")
"""What of it a file's name may hold."""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command, piped."""
    command = [sys.executable, "-m", "holdfast.cli.main", *arguments]
    around = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"} | {"COLUMNS": "200"} | environment
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False, env=around)


def unseen(text: str) -> set[str]:
    """Characters that a reader cannot see, or that change what is around them."""
    return {character for character in text if character != "\n" and unicodedata.category(character)[0] == "C"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, assessed, whose every name is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"a{EVIL}": random.normal(size=400), f"sex{WRITTEN}": random.choice([f"f{EVIL}", "m"], 400)})
    frame["label"] = np.where(frame.iloc[:, 0] > 0, f"yes{EVIL}", "no")
    frame[:200].to_csv(folder / "train.csv", index=False, quoting=csv.QUOTE_ALL)
    frame[200:].to_csv(folder / "holdout.csv", index=False, quoting=csv.QUOTE_ALL)
    model = DecisionTreeClassifier(max_depth=2).fit(frame[[f"a{EVIL}"]][:200], frame["label"][:200])
    joblib.dump(model, folder / "model.joblib")
    common = {"target": "label", "drop": [f"sex{WRITTEN}"], "groups": [f"sex{WRITTEN}"]}
    actor = {
        "name": f"actor{WRITTEN}",
        "access": "labels",
        "queries": {"typical": 5, "high": 9},
        "attempts_per_year": {"low": 1, "high": 2},
    }
    loss = {"per_event": {"low": 1000, "high": 2000, "unit": "EUR"}}
    system = {
        "system": f"s{WRITTEN}",
        "owner": f"o{WRITTEN}",
        "model": {"path": "model.joblib", "task": "classification", "modality": "tabular", "recipe": "clone"},
        "data": [
            {"name": f"t{WRITTEN}", "path": "train.csv", "role": "train", **common},
            {"name": f"h{WRITTEN}", "path": "holdout.csv", "role": "holdout", **common},
        ],
        "serving": {"returns": "label"},
        "actors": [actor],
        "impact": {"integrity": loss, "confidentiality": loss, "availability": loss},
        "appetite": {"annual_loss": 1000, "at": 0.95},
    }
    (folder / "holdfast.yaml").write_text(yaml.safe_dump(system))
    (folder / "policy.yaml").write_text("require: [T-EVA-03]\nthreats:\n  T-ETH-01: {max_success: 0.5}\n")
    return folder


@pytest.fixture(scope="module")
def assessed(hostile: Path) -> Path:
    """The same after an assessment."""
    done = run(hostile, "assess", "--budget", "quick", "--only", "data-audit", "--only", "unequal-harm", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "[U+001B][2J" in done.stderr
    assert "[U+202E]" in done.stdout
    assert not unseen(done.stdout + done.stderr)
    return hostile


DECIDED = ("T-DAT-01.insider", "accept", "--who", f"w{WRITTEN}", "--until", "2099-01-01", "--reason", f"r{WRITTEN}")
COMMANDS = {
    "threats": (("threats",), 0),
    "threats --all": (("threats", "--all"), 0),
    "threats --format markdown": (("threats", "--format", "markdown"), 0),
    "plan": (("plan", "--all"), 0),
    "report": (("report", "assessment.json"), 0),
    "report of files": (("report", "assessment.json", "--markdown", f"out{FILE}.md"), 0),
    "compare": (("compare", "assessment.json", "assessment.json"), 0),
    "history": (("history",), 0),
    "gate": (("gate", "assessment.json", "--policy", "policy.yaml"), 3),
    "harden": (("harden", "answers", "--mode", "label", "--output", f"new{FILE}.yaml"), 0),
    "decide": (("decide", *DECIDED), 0),
    "decisions": (("decisions",), 0),
}
WITHOUT_JSON_OF_NAMES = ("threats --all", "threats --format markdown", "gate")


@pytest.mark.slow
@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_names_are_shown_not_sent(assessed: Path, command: str) -> None:
    arguments, code = COMMANDS[command]
    arguments = tuple(_a_risk(assessed) if part == DECIDED[0] else part for part in arguments)
    if command == "decisions":
        run(assessed, "decide", _a_risk(assessed), *DECIDED[1:])
    done = run(assessed, *arguments)
    assert done.returncode == code, done.stderr
    assert ("\ufffdflip" if "markdown" in arguments else "[U+202E]flip") in done.stdout
    assert not unseen(done.stdout + done.stderr)
    assert not any(line.strip().startswith("PASS") for line in done.stdout.splitlines())
    assert "flip[bold]:x:" in done.stdout.replace("\\", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("threats --all", "threats --format markdown", "gate")]
)
def test_json_says_the_same_without_sending_it(assessed: Path, command: str) -> None:
    arguments, code = COMMANDS[command]
    arguments = tuple(_a_risk(assessed) if part == DECIDED[0] else part for part in arguments if part != "--all")
    if command == "harden":
        arguments = (*arguments, "--force")
    done = run(assessed, *arguments, "--json")
    assert done.returncode == code, done.stderr
    assert not unseen(done.stdout)
    assert "\u202eflip[bold]:x:" in json.dumps(json.loads(done.stdout), ensure_ascii=False)


@pytest.mark.slow
def test_init_and_trust_show_hostile_names(hostile: Path, tmp_path: Path) -> None:
    names = [f"{name}{WRITTEN}{suffix}" for name, suffix in (("m", ".joblib"), ("train", ".csv"), ("test", ".csv"))]
    for old, new in zip(("model.joblib", "train.csv", "holdout.csv"), names, strict=True):
        shutil.copy(hostile / old, tmp_path / new)
    code = f"c{FILE}.py"
    (tmp_path / code).write_text("x = 1\n")
    mine = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    for arguments in (
        ("init", *names, "--target", "label", "--yes", "--output", f"s{FILE}.yaml"),
        ("trust", code, "--yes"),
        ("trust", "--list"),
    ):
        done = run(tmp_path, *arguments, **mine)
        assert done.returncode == 0, done.stderr
        assert "[U+001B]" in done.stdout
        assert not unseen(done.stdout + done.stderr)
    entries = json.loads(run(tmp_path, "trust", "--list", "--json", **mine).stdout)["files"]
    assert entries[0]["name"] == code


@pytest.mark.slow
def test_bars_send_only_their_own_control_characters(assessed: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"TERM": "xterm", "COLUMNS": "120"}
    command = [
        sys.executable,
        "-m",
        "holdfast.cli.main",
        "assess",
        "--budget",
        "quick",
        "--only",
        "unequal-harm",
        "-o",
        "again.json",
    ]
    process = subprocess.Popen(command, cwd=assessed, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    assert process.wait() == 0
    text = sent.decode()
    assert "all probes" in text
    assert "[U+001B][2J" in text
    for hostile in ("\x1b[2J", "\x1b]8", "\x9b", "\u202e"):
        assert hostile not in text


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("gate", f"no{FILE}.json", "--policy", "p.yaml"), 2, "ConfigurationError"),
        (("plan", f"no{FILE}.yaml"), 2, "FileMissing"),
        (("plan", "--bad", f"x{EVIL}"), 2, "ConfigurationError"),
        (("history", f"a{EVIL}", f"b{EVIL}"), 2, "ConfigurationError"),
        (("trust", f"no{FILE}.pkl"), 2, "InvalidModel"),
    ],
)
def test_errors_have_one_form_for_people_and_one_for_programs(
    tmp_path: Path, arguments: tuple[str, ...], code: int, kind: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith("holdfast: ")
    assert all(line.startswith("  ") for line in rest)
    assert not unseen(done.stderr)
    as_json = run(tmp_path, *arguments, "--json")
    assert as_json.returncode == code
    error = json.loads(as_json.stdout)["error"]
    assert error.keys() == {"kind", "what", "where", "hint", "exit_code"}
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert error["what"]
    assert as_json.stderr == done.stderr
    assert not unseen(as_json.stdout)


def test_an_error_cannot_forge_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ConfigurationError("what\nPASS", where="a\r\nPASS", hint="do\n  sha256 0"))
    assert capsys.readouterr().err.splitlines() == ["holdfast: a", "  PASS: what", "  PASS", "  do", "  sha256 0"]


def test_a_fault_of_our_own_is_said_in_both_forms(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("personal data")

    monkeypatch.setattr(main, "build", fail)
    monkeypatch.setattr(sys, "argv", ["holdfast", "plan", "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["exit_code"] == 3
    assert "RuntimeError" in said.err
    assert "personal" not in said.out + said.err


def test_warnings_of_libraries_are_shown_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warnings, "showwarning", main.show_warning)
    warnings.warn(f"column {EVIL}\nPASS", UserWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not unseen(said)


def test_a_log_tells_a_probe_its_state_and_what_it_found_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "1")
    with Watcher(2, 1.0) as watcher:
        watcher.finished("label-flipping", "unmeasured", "how the model is trained was not given")
        watcher.finished("shift", "measured", "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].endswith("[1/2] label-flipping: unmeasured: how the model is trained was not given")
    assert lines[2].endswith("[2/2] shift: measured")


def test_schema_is_json_with_and_without_the_option(tmp_path: Path) -> None:
    plain, asked = (run(tmp_path, "schema", "system", *more) for more in ((), ("--json",)))
    assert plain.returncode == asked.returncode == 0
    assert json.loads(plain.stdout) == json.loads(asked.stdout)


def test_every_command_that_reports_takes_json() -> None:
    commands = list(main.build().registered_commands)
    for group in main.app.registered_groups:
        commands += group.typer_instance.registered_commands if group.typer_instance else []
    without = [command.name for command in commands if command.callback and "json" not in command.callback.__annotations__]
    assert len(commands) >= 14
    assert without == []


def _a_risk(folder: Path) -> str:
    return str(json.loads((folder / "assessment.json").read_text())["register"]["risks"][0]["id"])


@pytest.mark.slow
def test_a_page_of_a_comparison_is_a_page(assessed: Path) -> None:
    pair = ("compare", "assessment.json", "assessment.json")
    assert run(assessed, *pair, "--html", "page.html").returncode == 0
    page = (assessed / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Before and after" in page
    refused = run(assessed, *pair, "--output", "no.html")
    assert refused.returncode == 2
    assert "--html" in refused.stderr
    assert not (assessed / "no.html").exists()


def test_ctrl_c_is_an_error_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(main, "build", lambda: lambda **_: 130)
    monkeypatch.setattr(sys, "argv", ["holdfast", "assess", "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 130
