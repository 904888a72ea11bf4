"""init: write a system file from what the files show and what only the user knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import DEFAULT_SYSTEM, Json, emit_json, plain, say
from holdfast.reports.text import clean

if TYPE_CHECKING:
    from holdfast.assessment.inspection import Seen

FORMATS = {"pickle": "pickle", "compressed pickle": "joblib", "npy": "numpy_object", "onnx": "onnx"}
ACTORS: list[dict[str, Any]] = [
    {
        "name": "user of the service",
        "access": "scores",
        "queries": {"typical": 50, "high": 500},
        "attempts_per_year": {"low": 0.5, "high": 10},
    },
    {
        "name": "supplier of training rows",
        "access": "training rows",
        "poison_share": {"typical": 0.005, "high": 0.03},
        "attempts_per_year": {"low": 0.02, "high": 0.3},
    },
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    from holdfast.cli.main import DESCRIBE

    app.command("init", rich_help_panel=DESCRIBE)(init)


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its file, FILE.py:FUNCTION, or its endpoint's URL.")],
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Files or image folders: training rows, held-out rows.")],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that the model predicts.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")] = Path(DEFAULT_SYSTEM),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take defaults, and mark them as such.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json: Json = False,
) -> None:
    """Look at the files, ask what they cannot show, and write a system file of about 20 lines."""
    from holdfast.assessment.inspection import inspect
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import write_text
    from holdfast.threats.reader import parse_system

    if output.exists() and not force:
        raise ConfigurationError(f"{output} exists", hint="Choose another --output, or overwrite it with --force.")
    if not yes and (json or not _somebody_there()):
        raise ConfigurationError("nobody can be asked here", hint="Take the defaults with --yes, or run it in a terminal.")
    root = output.resolve().parent
    place = _place(model, root)
    paths = [_inside(path, root) for path in data]
    seen = inspect(root / place["path"] if "path" in place else None, [root / path for path in paths], target)
    _require_target(seen, target)
    if not json:
        for line in described(seen):
            say(plain(line))
    if not yes:
        say("What follows only you can know. Enter takes the value in brackets, and marks it as a default.")
    answers = Answers(ask=not yes)
    document = system_document(place, paths, seen, answers, root)
    text = render(document)
    parse_system(text, str(output))
    write_text(output, text)
    if json:
        found = {"file": str(output), "seen": described(seen), "lacks": lacking(document, seen)}
        emit_json({**found, "defaults": answers.defaults, "system": document})
        return
    say(f"Wrote {plain(output)}.")
    for line in lacking(document, seen):
        say(f"Lacks: {plain(line)}")
    if answers.defaults:
        say(f"Defaults, to be replaced by what you know: {plain(', '.join(answers.defaults))}")
    say(f"Next: {plain(_next(document, seen, output))}")


def _somebody_there() -> bool:
    return sys.stdin.isatty()


def lacking(document: dict[str, Any], seen: Seen) -> list[str]:
    """What the file leaves out and some probe needs."""
    lines = []
    if _lacks_factory(document, seen):
        lines.append(
            "no factory: the file holds weights only; add model.factory: FILE.py:FUNCTION, the code that builds the module"
        )
    if "recipe" not in document["model"]:
        lines.append("no recipe: label flipping will not be measured, and membership inference only by its weaker attack")
    if _lacks_holdout(document):
        lines.append("no holdout rows: plan and assess need rows the model was not trained on; add an entry with role: holdout")
    return lines


def _lacks_factory(document: dict[str, Any], seen: Seen) -> bool:
    return seen.needs_factory and "factory" not in document["model"]


def _lacks_holdout(document: dict[str, Any]) -> bool:
    return not any(entry.get("role") == "holdout" or "split" in entry for entry in document["data"])


def _next(document: dict[str, Any], seen: Seen, output: Path) -> str:
    """The commands that lead on; not to a measurement while something is missing without which nothing can be loaded."""
    model = document["model"]
    code = [model[key].rpartition(":")[0] for key in ("entry", "factory", "recipe") if ":" in model.get(key, "")]
    trust = [f"holdfast trust {output.parent / name}" for name in dict.fromkeys(code)]
    missing = ["the factory"] if _lacks_factory(document, seen) else []
    trust += ["holdfast trust FILE.py"] if missing else []
    missing += ["holdout rows"] if _lacks_holdout(document) else []
    if missing:
        return ", ".join([f"add {' and '.join(missing)}", *trust, f"then holdfast plan {output}"])
    return ", ".join([*trust, f"holdfast threats {output}", f"then holdfast assess {output}"])


class Answers:
    """What only the user knows: asked for, or taken by default and marked. Defaults are cautious: none excludes a threat.

    Args:
        ask: whether there is somebody to ask.
    """

    def __init__(self, ask: bool) -> None:
        self.ask = ask
        self.defaults: list[str] = []

    def choice(self, where: str, question: str, default: str, known: list[str]) -> str | list[str]:
        """One of the known words, or several with commas between them."""
        given = self._words(where, question, default, known, len(known))
        return given[0] if len(given) == 1 else given

    def one(self, where: str, question: str, default: str, known: list[str]) -> str:
        """One of the known words."""
        return self._words(where, question, default, known, 1)[0]

    def _words(self, where: str, question: str, default: str, known: list[str], most: int) -> list[str]:
        while True:
            answer = self._answer(f"{clean(question)} ({' | '.join(known)})", default)
            if not answer:
                self._mark(where)
                return [default]
            given = list(dict.fromkeys(word.strip() for word in answer.split(",") if word.strip()))
            if 0 < len(given) <= most and set(given) <= set(known):
                return given
            typer.echo(f"  {'one of' if most == 1 else 'one or more, with commas between, of'}: {', '.join(known)}")

    def order(self, where: str, question: str, default: list[str]) -> list[str]:
        """The same names in their order."""
        while True:
            answer = self._answer(question, ", ".join(map(clean, default)))
            if not answer:
                self._mark(where)
                return default
            given = [name.strip() for name in answer.split(",")]
            if sorted(given) == sorted(map(clean, default)):
                return [next(name for name in default if clean(name) == word) for word in given]
            typer.echo("  each of these once, with commas between")

    def code(self, question: str, root: Path) -> str:
        """`FILE.py:FUNCTION` below root, or nothing; nothing as well where nobody is asked."""
        from holdfast.core.errors import ConfigurationError

        while self.ask:
            given = str(typer.prompt(question, default="", show_default=False)).strip()
            if not given:
                break
            file, _, function = given.rpartition(":")
            try:
                if file.endswith(".py") and function.isidentifier():
                    return f"{_inside(Path(file), root)}:{function}"
                typer.echo("  such as train.py:fit")
            except ConfigurationError as error:
                typer.echo(f"  {clean(str(error))}")
        return ""

    def _answer(self, question: str, default: str) -> str:
        """What was typed; nothing where Enter took the default or nobody is asked."""
        return str(typer.prompt(f"{question} [{default}]", default="", show_default=False)).strip() if self.ask else ""

    def _mark(self, where: str) -> None:
        if where not in self.defaults:
            self.defaults.append(where)

    def amount(self, where: str, question: str, default: float) -> float:
        """A positive amount."""
        while True:
            answer = self._answer(question, f"{default:.15g}")
            if not answer:
                self._mark(where)
                return default
            try:
                given = float(answer)
            except ValueError:
                given = 0.0
            if 0 < given < float("inf"):
                return int(given) if given.is_integer() else given
            typer.echo("  a number above 0")

    def span(self, where: str, question: str, default: tuple[float, float]) -> dict[str, float]:
        """A range with low and high."""
        low = self.amount(where, f"{question}: rarely less than", default[0])
        high = self.amount(where, f"{question}: rarely more than", max(default[1], low))
        return {"low": min(low, high), "high": max(low, high)}


def described(seen: Seen) -> list[str]:
    """What the files showed, in sentences."""
    lines = []
    if seen.check is not None:
        of = f" of {seen.framework}" if seen.framework and not seen.check.format.startswith(seen.framework) else ""
        lines.append(f"Model: {seen.check.format} file{of}")
    if seen.why_closed:
        lines.append(f"Not opened: {seen.why_closed}. {seen.remedy}")
    for contents in seen.data:
        width = contents.x.shape[1] if contents.kind == "table" else " x ".join(map(str, contents.x.shape[1:]))
        lines.append(
            f"Data: {contents.kind}, {len(contents):,} rows, {width} {'columns' if contents.kind == 'table' else 'values'}"
        )
    if seen.target:
        lines.append(f"Target: {seen.target}")
    if seen.classes:
        lines.append(f"Classes: {', '.join(seen.classes[:10])}")
    if seen.generates is False:
        lines.append("Generates nothing: it classifies (genai: none)")
    for name in seen.dropped:
        naming = "names rows; dropped as input, and not set as id, because ids are shown in reports"
        lines.append(f"{name}: {naming if name in seen.naming else 'is no input of the model; dropped as input'}")
    if seen.clusters:
        lines.append(f"{seen.clusters} repeats: dropped as input, set as cluster")
    if seen.sensitive:
        lines.append(f"Sensitive by the sound of their names: {', '.join(seen.sensitive)}")
    if seen.groups:
        lines.append(f"Groups by the sound of their names: {', '.join(seen.groups)}")
    return lines


def system_document(place: dict[str, str], paths: list[str], seen: Seen, answers: Answers, root: Path) -> dict[str, Any]:
    """The system file as a mapping, asking for what the files do not show."""
    from holdfast.threats.catalogue import load_catalogue

    words = {name: list(values) for name, values in load_catalogue().facts.items()}
    name = root.name or "system"
    model: dict[str, Any] = {**place, "task": "classification", "modality": seen.modality}
    artifact = _artifact_format(seen)
    model |= {"artifact_format": artifact} if artifact else {}
    if seen.numbered:
        question = "The labels in the order in which the model numbers them, that of 0 first"
        model["classes"] = answers.order("model.classes", question, list(seen.labels))
    if seen.needs_factory and (factory := answers.code("Function that builds the module, FILE.py:FUNCTION (empty: none)", root)):
        model["factory"] = factory
    recipe = seen.recipe or answers.code("Function that trains it, FILE.py:FUNCTION (empty: none)", root)
    model |= {"recipe": recipe} if recipe else {}
    data = _data_entries(paths, seen, answers, words)
    serving = {
        "reach": answers.choice("serving.reach", "Who can reach it", "internet", words["reach"]),
        "auth": answers.choice("serving.auth", "How do callers prove who they are", "none", words["auth"]),
        "returns": answers.choice(
            "serving.returns", "What does it answer", "label" if seen.scores is False else "scores", words["returns"]
        ),
    }
    lifecycle = {"retrain": answers.choice("lifecycle.retrain", "How is it trained again", "scheduled", words["retrain"])}
    lifecycle |= {"genai": "none"} if seen.generates is False else {}
    people = {
        "affects_people": answers.choice("people.affects_people", "Does it affect people", "direct", words["affects_people"])
    }
    impact = {}
    unit = "EUR"
    for goal, meaning, low, high in (
        ("integrity", "a wrong decision somebody forced", 1000, 100000),
        ("confidentiality", "a leak of personal data or of the model", 10000, 1000000),
        ("availability", "the service being down or useless", 1000, 60000),
    ):
        impact[goal] = {
            "per_event": {**answers.span(f"impact.{goal}", f"Loss in {unit} of {meaning}", (low, high)), "unit": unit}
        }
    appetite = {"annual_loss": answers.amount("appetite", f"Yearly loss in {unit} that is acceptable", 100000), "at": 0.95}
    answers.defaults.append("actors")
    return {
        "system": name,
        "model": model,
        "data": data,
        "serving": serving,
        "lifecycle": lifecycle,
        "people": people,
        "actors": [{**ACTORS[0], "access": "labels" if serving["returns"] == "label" else "scores"}, ACTORS[1]],
        "impact": impact,
        "appetite": appetite,
        **({"defaults": answers.defaults} if answers.defaults else {}),
    }


def render(document: dict[str, Any]) -> str:
    """YAML with a comment for each section. Every name and value goes through the YAML writer, which quotes what needs it."""
    comments = {
        "system": "What is assessed. Every field: holdfast schema system, and docs/reference/system-file.md.",
        "model": "recipe: how it is trained (clone refits it), so that shadow models and poisoned twins can be trained alike.",
        "data": "role: was the model trained on these rows? sensitive: must not leak. groups: must not be harmed unequally.",
        "serving": "Facts left out are unknown and exclude no threat; holdfast threats says which ones would decide something.",
        "actors": "Who may attack; ranges are what you expect to be exceeded in 95 % and in 5 % of years.",
        "impact": "The loss of one event, as a range: rarely less than low, rarely more than high.",
        "appetite": "The yearly loss that may be exceeded with 5 % probability at most.",
        "defaults": "These fields are guesses of the tool. Replace them, then take them off this list.",
    }
    lines: list[str] = []
    for key, value in document.items():
        if key == "model" and "recipe" not in value:
            lines.append("# To add: recipe: FILE.py:FUNCTION, how it is trained, for shadow models and poisoned twins.")
        elif key in comments:
            lines.append(f"# {comments[key]}")
        if key == "model" and value.get("artifact_format") == "torch" and "factory" not in value:
            lines.append("# To add for a state dict: factory: FILE.py:FUNCTION, the code that builds its module.")
        if key in ("data", "actors"):
            lines.append(f"{key}:")
            lines += [f"  - {_flow(item)}" for item in value]
        elif key == "impact":
            lines.append(f"{key}:")
            lines += [f"  {goal}: {_flow(item)}" for goal, item in value.items()]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """One line of YAML."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=False, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def _data_entries(paths: list[str], seen: Seen, answers: Answers, words: dict[str, list[str]]) -> list[dict[str, Any]]:
    roles = _roles(paths, seen, answers)
    personal = "health" if "health" in seen.kinds else "personal" if seen.kinds else "internal"
    sensitivity = answers.choice("data_sensitivity", "How sensitive are the data", personal, words["data_sensitivity"])
    entries: list[dict[str, Any]] = []
    for index, path in enumerate(paths):
        entry: dict[str, Any] = {"name": roles[index] or f"data{index + 1 if index else ''}", "path": path}
        entry |= {"role": roles[index]} if roles[index] else {}
        entry |= {"split": seen.split} if seen.split and not roles[index] else {}
        if seen.target is not None:
            entry["target"] = seen.target
        for key, columns in (("sensitive", seen.sensitive), ("groups", seen.groups), ("drop", seen.dropped)):
            entry |= {key: columns} if columns else {}
            answers.defaults += [f"data.{entry['name']}.{key}"] if columns and key != "drop" else []
        entry |= {"cluster": seen.clusters} if seen.clusters else {}
        if not index:
            entry["data_sensitivity"] = sensitivity
        entries.append(entry)
    first = str(entries[0]["name"])
    answers.defaults = [f"data.{first}.{mark}" if mark == "data_sensitivity" else mark for mark in answers.defaults]
    return entries


def _roles(paths: list[str], seen: Seen, answers: Answers) -> list[str | None]:
    """`train`, `holdout`, or None where a split column says it."""
    if len(paths) == 1 and seen.split:
        return [None]
    hints = {"train": ("train", "fit"), "holdout": ("holdout", "test", "valid", "eval")}
    found = [next((role for role, words in hints.items() if any(word in path.lower() for word in words)), None) for path in paths]
    if len(paths) == 1:
        guess = found[0] or "holdout"
        return [
            answers.one(
                "data.0.role", f"train: the model was trained on {paths[0]}; holdout: it was not", guess, ["train", "holdout"]
            )
        ]
    if set(found) == {"train", "holdout"} and len(found) == 2:
        return list(found)
    return [
        answers.one(
            f"data.{index}.role", f"Was the model trained on {path}", "holdout" if index else "train", ["train", "holdout"]
        )
        for index, path in enumerate(paths)
    ]


def _artifact_format(seen: Seen) -> str | None:
    if seen.check is None:
        return None
    if seen.check.format.startswith("torch"):
        return "torch"
    if seen.check.format == "pickle" and any(name.startswith("joblib.") for name in seen.check.globals):
        return "joblib"
    return FORMATS.get(seen.check.format)


def _place(model: str, root: Path) -> dict[str, str]:
    if model.startswith(("http://", "https://")):
        return {"endpoint": model}
    file, _, function = model.rpartition(":")
    if file.endswith(".py") and function.isidentifier():
        return {"entry": f"{_inside(Path(file), root)}:{function}"}
    return {"path": _inside(Path(model), root)}


def _inside(path: Path, root: Path) -> str:
    from holdfast.core.errors import ConfigurationError

    if not path.exists():
        raise ConfigurationError("no such file", where=str(path))
    real = path.resolve()
    if not real.is_relative_to(root):
        raise ConfigurationError(
            f"lies outside {root}", where=str(path), hint="Write the system file above its files: --output FOLDER/holdfast.yaml."
        )
    return real.relative_to(root).as_posix()


def _require_target(seen: Seen, target: str | None) -> None:
    from holdfast.core.errors import ConfigurationError

    if seen.data[0].kind != "table":
        return
    columns = [str(name) for name in seen.data[0].x.columns]
    if target is not None and target not in columns:
        raise ConfigurationError(f"no column {target!r}", where="--target", hint=f"Columns: {', '.join(columns[:20])}")
    if seen.target is None:
        raise ConfigurationError("which column the model predicts cannot be seen", hint="Name it: --target COLUMN.")
