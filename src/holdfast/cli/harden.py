"""harden: apply a control and describe the hardened system in a file of its own, ready to be assessed again."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import DEFAULT_SYSTEM, Json, emit_json, plain, plain_lines, say

if TYPE_CHECKING:
    from holdfast.hardening.retraining import Choice

MARK = "# Written by holdfast harden"

System = Annotated[Path, typer.Argument(metavar="SYSTEM", help="The system file.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The new system file, in the folder of the old one.  [default: SYSTEM-hardened.yaml]"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that holdfast harden did not write. Never the old system.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    from holdfast.cli.main import LOWER

    group = typer.Typer(help="Apply a control; then assess again and compare.", no_args_is_help=True)
    group.command("answers")(answers)
    group.command("retrain")(retrain)
    app.add_typer(group, name="harden", rich_help_panel=LOWER)


def answers(
    system: System = Path(DEFAULT_SYSTEM),
    mode: Annotated[str, typer.Option(help="label, round=DIGITS, top_k=K, or both: round=2,top_k=3.")] = "label",
    output: Output = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Let the service tell less: labels only, rounded probabilities, or the k largest. The attacks go through it."""
    from holdfast.core.files import write_text
    from holdfast.hardening.answers import parse_answers
    from holdfast.threats.reader import parse_system, read_system

    chosen = read_mode(mode)
    described = read_system(system)
    parse_answers(chosen, len(described.model.classes) if described.model.classes else None)
    new = _new_file(system, output, force)
    text = _revised(system, {("serving", "answers"): chosen}, "C-OBSCURE", f"answers {mode}")
    parse_system(text, str(new))
    write_text(new, text)
    if json:
        emit_json({"control": "C-OBSCURE", "system": str(new), "answers": chosen})
        return
    _say_written(new, "C-OBSCURE")


def retrain(
    system: System = Path(DEFAULT_SYSTEM),
    strength: Annotated[
        str,
        typer.Option("--strength", "--leaf", metavar="NUMBER|auto", help="Leaf size or other strength; auto cross-validates."),
    ] = "auto",
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="Cross-validated utility that auto may give up.")] = 0.005,
    output: Output = None,
    seed: Annotated[int, typer.Option(help="Of folds and training.")] = 0,
    trust: Annotated[list[str] | None, typer.Option("--trust", metavar="SHA256", help="As for assess.")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train the model again with larger leaves, early stopping or a stronger penalty, chosen on the training rows alone."""
    import joblib

    from holdfast.assessment.loading import load_target
    from holdfast.assessment.rehearsal import rehearse
    from holdfast.cli.progress import Watcher
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import write_bytes, write_text
    from holdfast.core.progress import Silent
    from holdfast.hardening import retraining
    from holdfast.threats.reader import parse_system, read_system

    described = read_system(system)
    new = _new_file(system, output, force)
    rehearse(described, system, trust or ())
    if described.model.path is not None:
        model_file = _new_model(system, Path(described.model.path), new, force)
    target = load_target(described, system, trust=trust or ())
    if _estimator(target.weights) is None or described.model.path is None:
        raise ConfigurationError(
            f"a {target.weights.framework} model retrained here cannot be written back as a model file",
            where=str(system),
            hint="Add the penalty to your own training, or use holdfast.hardening.retraining from Python.",
        )
    with nullcontext(Silent()) if plain_lines() else Watcher(1, 0.0) as progress:
        done = retraining.retrain(target, seed, strength=_strength(strength), tolerance=tolerance, progress=progress)
    if done.choice.strength is None:
        raise ConfigurationError(
            f"no stronger regulariser keeps the cross-validated {done.choice.measure} within {tolerance:g} of the best and the "
            "mean recall of today's decisions",
            where=str(system),
            hint="Give --strength, or a larger --tolerance.",
        )
    settings = ", ".join(f"{name} = {value}" for name, value in done.choice.settings.items())
    changes: dict[tuple[str, ...], Any] = {("model", "path"): str(model_file), ("model", "recipe"): "clone"}
    if described.model.artifact_format is not None:
        changes["model", "artifact_format"] = "joblib"
    text = _revised(system, changes, "C-SMALL", f"retrain with {settings}")
    estimator = _estimator(done.model)
    before = _estimator(target.weights).get_params(deep=True)
    estimator.set_params(**{name: value for name, value in before.items() if name.rsplit("__", 1)[-1] == "n_jobs"})
    content = io.BytesIO()
    joblib.dump(estimator, content)
    parse_system(text, str(new))
    write_bytes(system.parent / model_file, content.getvalue())
    write_text(new, text)
    if json:
        emit_json({"control": "C-SMALL", "system": str(new), "model": str(system.parent / model_file), **_as_json(done.choice)})
        return
    _show_choice(done.choice, tolerance)
    say(f"The retrained model is in {plain(system.parent / model_file)}.")
    _say_written(new, "C-SMALL")


def _estimator(model: Any) -> Any:
    """The estimator of a scikit-learn model; None for any other."""
    from holdfast.models.sklearn import SklearnModel

    return model.estimator if isinstance(model, SklearnModel) else None


def read_mode(mode: str) -> str | dict[str, int]:
    """`label`, or a mapping from `round=2`, `top_k=3`, or both with a comma.

    Raises:
        ConfigurationError: it is written in another way.
    """
    from holdfast.core.errors import ConfigurationError

    if mode == "label":
        return mode
    chosen = {}
    for part in mode.split(","):
        name, _, number = part.strip().partition("=")
        if name not in ("round", "top_k") or name in chosen or not number.isdecimal() or len(number) > 4:
            raise ConfigurationError(f"unknown mode {part.strip()!r}", where="--mode", hint="label, round=DIGITS or top_k=K.")
        chosen[name] = int(number)
    return chosen


def _strength(text: str) -> float | None:
    from holdfast.core.errors import ConfigurationError

    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is neither a number nor auto", where="--strength") from error


def _new_file(system: Path, output: Path | None, force: bool) -> Path:
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import open_file

    new = output or system.with_name(f"{system.stem}-hardened.yaml")
    if new.parent.resolve() != system.parent.resolve():
        raise ConfigurationError(
            "the new system file must stand beside the old one, because paths in it are relative to its folder",
            where=str(new),
            hint=f"For example {system.with_name(new.name)}.",
        )
    if new.exists() and new.resolve() == system.resolve():
        raise ConfigurationError("the old system file is never overwritten", where=str(new), hint="Choose another --output.")
    old = open_file(new)
    if old is not None:
        with old:
            ours = old.read(len(MARK)) == MARK.encode()
        if not ours and not force:
            raise ConfigurationError("the file exists and holdfast harden did not write it", where=str(new), hint="Use --force.")
    return new


def _revised(system: Path, changes: Mapping[tuple[str, ...], Any], control: str, what: str) -> str:
    from holdfast.core.files import read_file
    from holdfast.hardening.system_file import revise
    from holdfast.threats.yamlfile import Limits

    old = read_file(system, Limits().size).decode("utf-8-sig")
    return f"{MARK} from {_line(system.name)}: {_line(what)}.\n" + revise(old, changes, {("controls",): [control]})


def _new_model(system: Path, old: Path, new: Path, force: bool) -> Path:
    """Where the retrained model goes, relative to the system file.

    Raises:
        ConfigurationError: something is there that the earlier retraining for the same new system file did not write.
    """
    from holdfast.core.errors import ConfigurationError
    from holdfast.threats.reader import read_system

    path = old.with_name(f"{old.stem}-{new.stem}.joblib")
    if not (system.parent / path).exists() or force:
        return path
    try:
        replaces = new.exists() and read_system(new).model.path == str(path)
    except ConfigurationError:
        replaces = False
    if not replaces:
        raise ConfigurationError(
            "the file exists and holdfast harden did not write it", where=str(system.parent / path), hint="Use --force."
        )
    return path


def _show_choice(choice: Choice, tolerance: float) -> None:
    settings = ", ".join(f"{name} = {value}" for name, value in choice.settings.items())
    for one in choice.tried:
        name = "as it was" if one.strength is None else f"{one.strength:g}"
        chosen = "  <- chosen" if one.strength == choice.strength else ""
        spread = f"(spread over folds {one.spread:.4f})"
        say(f"  {name:>10}  {choice.measure} {one.utility:.4f} {spread}, mean recall {one.recall:.4f}{chosen}")
    if len(choice.tried) > 1:
        say(
            f"Decided by {choice.measure}: the strongest within {tolerance:g} of the best {choice.measure}, as long as its mean "
            f"recall is within {tolerance:g} of that of the model as it was."
        )
    say(f"Retrained with {plain(settings)}.")


def _as_json(choice: Choice) -> dict[str, Any]:
    return {
        "settings": dict(choice.settings),
        "strength": choice.strength,
        "measure": choice.measure,
        "tried": [
            {"strength": one.strength, "utility": one.utility, "spread": one.spread, "recall": one.recall} for one in choice.tried
        ],
    }


def _say_written(new: Path, control: str) -> None:
    name = plain(new)
    say(f"{control} is described in {name}. Whether it helps is not known until it is measured:")
    say(f"  holdfast assess {name} --output after.json, with the --seed and --budget of the assessment before")
    say("  holdfast compare before.json after.json")


def _line(text: str) -> str:
    """One printable line, for a comment of a file."""
    return "".join(character if character.isprintable() else "?" for character in text)
