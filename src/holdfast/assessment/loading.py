"""From a system file to a target: everything it names is confined, checked, loaded and joined, in this order.

1. Read the data, and split them by role.
2. Check the model's file (or code, or endpoint) and load it.
3. Bring both together: the model's columns, the labels as its class indices.
4. Add the recipe, the domain, the facts, the digests, and the answer hardening of the service.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.artifacts.checking import FileCheck, check_file
from holdfast.artifacts.code import call_code, load_code
from holdfast.artifacts.loading import load_object
from holdfast.artifacts.paths import resolve_inside
from holdfast.artifacts.trust import TrustStore
from holdfast.core.errors import ConfigurationError, InvalidData, InvalidModel
from holdfast.core.files import read_if_present
from holdfast.core.tabular import Relation
from holdfast.core.target import Dataset, DomainSpec, Modality, Model, Recipe, Target
from holdfast.datasets.joining import join
from holdfast.datasets.reading import Part, read_parts
from holdfast.models.adapter import match_columns
from holdfast.models.answers import Context, class_name
from holdfast.models.loading import model_from_native, model_from_object
from holdfast.models.recipe import CloneRecipe, FunctionRecipe
from holdfast.threats.system import DomainSection, ModelSection, System
from holdfast.threats.yamlfile import Limits

SAMPLE_ROWS = 32
NATIVE = ("onnx", "xgboost json", "xgboost ubj", "lightgbm")


def load_target(system: System, file: Path, *, trust: Collection[str] = (), show_values: bool = False) -> Target:
    """Load what a system file describes.

    Args:
        system: its content.
        file: where it lies; paths in it are relative to its folder.
        trust: SHA-256 digests of files that may run code, besides those in the user's trust store.
        show_values: whether the user allowed personal values in evidence.

    Raises:
        ConfigurationError, InvalidData, InvalidModel: something it names is missing, malformed or does not fit.
        UnsafeFile: opening a file could run code that nobody trusts.
    """
    root = file.resolve().parent
    trusted = TrustStore().digests(trust)
    parts, notes = _read_data(system, root)
    names = {part.role: label_names(part.labels) for part in parts}
    context = Context(
        sample=parts[0].x[:SAMPLE_ROWS],
        labels=ordered_names({name for each in names.values() for name in each}),
        classes=None if system.model.classes is None else tuple(class_name(value) for value in system.model.classes),
        output=system.model.output,
        source=system.model.path or system.model.entry or system.model.endpoint or "model",
    )
    loaded, parts = _load_with_columns(system.model, root, trusted, context, parts, notes)
    model = loaded.model
    columns = _model_columns(model, parts[0])
    datasets: dict[str, Dataset] = {part.role: join(part, model.classes, names[part.role], columns) for part in parts}
    holdout = datasets["holdout"]
    _note_unused_sensitive(parts, datasets, notes)
    context = replace(context, sample=holdout.x[:SAMPLE_ROWS])
    recipe = _load_recipe(system.model, root, trusted, loaded, context)
    described = read_if_present(file, Limits().size)
    digests = {"model": loaded.digest, "system": "" if described is None else _digest(described)}
    digests |= {name: dataset.digest for name, dataset in datasets.items()}
    digests |= {"recipe": recipe.digest} if recipe else {}
    digests["served"] = _digest(json.dumps([loaded.digest, system.serving.answers], sort_keys=True).encode())
    digests["data"] = _digest(json.dumps([dataset.digest for _, dataset in sorted(datasets.items())]).encode())
    digests["domain"] = _digest(system.domain.model_dump_json().encode())
    target = Target(
        name=system.system,
        model=model,
        modality=_modality(system, parts[0]),
        holdout=holdout,
        train=datasets.get("train"),
        recipe=recipe,
        domain=_domain(system.domain, holdout),
        facts=system.facts(),
        model_path=loaded.path,
        show_values=show_values,
        digests=digests,
        notes=tuple(notes),
    )
    answers = system.serving.answers
    return (
        target
        if answers is None
        else _hardened(target, answers if isinstance(answers, str) else {str(k): v for k, v in answers.items()})
    )


@dataclass(frozen=True)
class Loaded:
    """A model, where its file is, and the digest of all that decides what it answers."""

    model: Model
    path: Path | None
    digest: str


def load_model(section: ModelSection, root: Path, trusted: Collection[str], context: Context) -> Loaded:
    """Check and load the model a section names.

    Raises:
        ConfigurationError, InvalidModel: it is missing, malformed, or answers in a form no adapter understands.
        UnsafeFile: opening it could run code that nobody trusts.
    """
    if section.endpoint is not None:
        from holdfast.models.remote import RemoteModel

        remote = RemoteModel(section.endpoint, context)
        return Loaded(remote, None, remote.digest)
    if section.entry is not None:
        code = load_code(section.entry, root, trusted, "model.entry")
        return Loaded(model_from_object(code.function, context), None, code.digest)
    path = resolve_inside(root, section.path or "", "model.path")
    check = check_file(path, trusted).require()
    if check.format == "torch":
        return _load_torch(section, root, trusted, check, context)
    if check.format in ("torchscript", "torch export"):
        from holdfast.models.torch import read_program

        module = read_program(check.data, check.format.replace(" ", "-"), context.source)
        return Loaded(model_from_object(module, context), path, check.digest)
    if check.format in NATIVE:
        return Loaded(model_from_native(check.format.replace(" ", "-"), check.data, context), path, check.digest)
    return Loaded(model_from_object(load_object(check), context), path, check.digest)


def label_names(labels: NDArray[Any]) -> list[str]:
    """The class name of each raw label."""
    codes, values = pd.factorize(np.asarray(labels))
    known = [class_name(value) for value in values]
    return [known[code] for code in codes]


def ordered_names(names: set[str]) -> tuple[str, ...]:
    """Class names in the order their raw labels sort in: numbers by size, all else as text."""
    if all(name.lstrip("-").isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _read_data(system: System, root: Path) -> tuple[list[Part], list[str]]:
    """The parts, holdout first, and what had to be assumed."""
    if not system.data:
        raise ConfigurationError(
            "no data are named", where="data", hint="Add at least one entry with rows the model was not trained on."
        )
    parts: list[Part] = []
    notes: list[str] = []
    for index, section in enumerate(system.data):
        found, assumed = read_parts(section, resolve_inside(root, section.path, f"data.{index}.path"))
        parts += found
        notes += assumed
    roles = [part.role for part in parts]
    for role in ("train", "holdout"):
        if roles.count(role) > 1:
            raise ConfigurationError(
                f"{roles.count(role)} data entries hold {role} rows", where="data", hint="State role: train for one of them."
            )
    if "holdout" not in roles:
        raise ConfigurationError("no holdout rows are named", where="data", hint="Add an entry with role: holdout.")
    _check_same_columns(parts)
    return sorted(_with_pseudonyms(parts), key=lambda part: part.role), notes


def _with_pseudonyms(parts: Sequence[Part]) -> list[Part]:
    """Clusters under numbers, the same for the same cluster in every part: what rows share may be a patient's number."""
    if not all(part.clusters is not None for part in parts):
        return [
            replace(part, clusters=None if part.clusters is None else _numbered(pd.factorize(part.clusters)[0])) for part in parts
        ]
    codes, _ = pd.factorize(np.concatenate([part.clusters for part in parts if part.clusters is not None]))
    bounds = np.cumsum([len(part.labels) for part in parts])[:-1]
    return [replace(part, clusters=_numbered(own)) for part, own in zip(parts, np.split(codes, bounds), strict=True)]


def _numbered(codes: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array([f"cluster-{code + 1}" for code in codes], dtype=np.str_)


def _check_same_columns(parts: Sequence[Part]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if isinstance(first.x, pd.DataFrame) != isinstance(other.x, pd.DataFrame):
            raise InvalidData("train and holdout are of different kinds", where=other.path.name)
        if not isinstance(first.x, pd.DataFrame):
            if first.x.shape[1:] != other.x.shape[1:]:
                raise InvalidData(
                    f"inputs of shape {other.x.shape[1:]} where {first.path.name} has {first.x.shape[1:]}", where=other.path.name
                )
            continue
        missing = [str(name) for name in first.x.columns if name not in other.x.columns]
        if missing:
            raise InvalidData(f"lacks the column {missing[0]!r} that {first.path.name} has", where=other.path.name)


def _load_with_columns(
    section: ModelSection, root: Path, trusted: Collection[str], context: Context, parts: list[Part], notes: list[str]
) -> tuple[Loaded, list[Part]]:
    """The model, and the parts without columns for groups where the model takes its inputs only without them."""
    try:
        return load_model(section, root, trusted, context), parts
    except (InvalidModel, InvalidData):
        groups = parts[0].groups
        if groups is None or not isinstance(context.sample, pd.DataFrame):
            raise
        fewer = [name for name in context.sample.columns if name not in groups.columns]
        if not fewer or len(fewer) == context.sample.shape[1]:
            raise
        try:
            loaded = load_model(section, root, trusted, replace(context, sample=context.sample[fewer]))
        except (InvalidModel, InvalidData):
            loaded = None
        if loaded is None:
            raise
    notes.append("columns that tell groups apart are not among the model's inputs, which it does not name")
    return loaded, [replace(part, x=part.x[fewer]) for part in parts]


def _load_torch(section: ModelSection, root: Path, trusted: Collection[str], check: FileCheck, context: Context) -> Loaded:
    from holdfast.models.torch import import_torch, module_with_weights, read_weights

    if check.unlisted:
        torch = import_torch()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                weights = torch.load(io.BytesIO(check.data), map_location="cpu", weights_only=False)
        except Exception as error:
            raise InvalidModel(f"torch cannot read it: {type(error).__name__}: {error}", where=context.source) from error
        if isinstance(weights, torch.nn.Module):
            return Loaded(model_from_object(weights.eval(), context), check.path, check.digest)
    else:
        weights = read_weights(check.data, context.source)
    if section.factory is None:
        raise ConfigurationError(
            "a state dict needs the code that builds its module", where="model.factory", hint="Add factory: FILE.py:FUNCTION."
        )
    code = load_code(section.factory, root, trusted, "model.factory")
    module = module_with_weights(call_code(code, "model.factory"), weights, context.source)
    return Loaded(model_from_object(module, context), check.path, _digest(f"{check.digest}:{code.digest}".encode()))


def _model_columns(model: Model, part: Part) -> list[Any] | None:
    if not isinstance(part.x, pd.DataFrame):
        return None
    names = getattr(model, "feature_names", None)
    return list(part.x.columns) if names is None else match_columns(part.x.columns, names, part.path.name)


def _load_recipe(section: ModelSection, root: Path, trusted: Collection[str], loaded: Loaded, context: Context) -> Recipe | None:
    if section.recipe is None:
        return None
    if section.recipe == "clone":
        return CloneRecipe(loaded.model, context, loaded.digest)
    code = load_code(section.recipe, root, trusted, "model.recipe")
    return FunctionRecipe(code.function, loaded.model, context, code.digest, "model.recipe")


def _modality(system: System, part: Part) -> Modality:
    stated = system.model.modality
    for value in [stated] if isinstance(stated, str) else stated or []:
        if value in get_args(Modality):
            return cast(Modality, value)
    picture = part.kind == "images" or (part.kind == "array" and part.x.ndim >= 3)
    return "image" if picture else "tabular"


def _domain(section: DomainSection, holdout: Dataset) -> DomainSpec:
    named: Mapping[str, Sequence[str]] = {
        "immutable": section.immutable,
        "integer": section.integer,
        "bounds": list(section.bounds),
        "costs": list(section.costs),
        "relations": [name for relation in section.relations for name in relation.weights],
    }
    known = [str(name) for name in holdout.x.columns] if holdout.is_table else []
    for option, names in named.items():
        for name in names:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else "Only a table's input columns can be named here."
                raise ConfigurationError(f"the model takes no column {name!r}", where=f"domain.{option}", hint=hint)
    return DomainSpec(
        norm=section.norm,
        radius=section.radius,
        low=section.low,
        high=section.high,
        immutable=tuple(section.immutable),
        integer=tuple(section.integer),
        bounds=dict(section.bounds),
        costs=dict(section.costs),
        relations=tuple(
            Relation(weights=relation.weights, bound=float(relation.at_most), kind="at_most")
            if relation.at_most is not None
            else Relation(weights=relation.weights, bound=float(relation.equals or 0.0), kind="equals")
            for relation in section.relations
        ),
    )


def _note_unused_sensitive(parts: Sequence[Part], datasets: Mapping[str, Dataset], notes: list[str]) -> None:
    unused = sorted({name for part in parts for name in part.sensitive if name not in datasets[part.role].sensitive})
    if unused:
        notes.append(f"sensitive columns that the model does not take cannot be inferred through it: {', '.join(unused)}")


def _hardened(target: Target, answers: str | Mapping[str, int]) -> Target:
    from holdfast.hardening.answers import harden_answers

    def harden(model: Model) -> Model:
        return harden_answers(model, answers)

    return replace(target, model=harden(target.model), bare=target.model, harden=harden)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
