"""The system file, `holdfast.yaml`: what the user says about the model, its data, its service, its people and its attackers.

Every field that the catalogue's rules look at is a fact; a fact that is not stated is unknown, and an unknown fact never
removes a threat. The sentence under each field is its description in the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

AccessName = Literal[
    "labels", "scores", "gradients", "training rows", "feedback", "model file", "host", "network", "updates", "none"
]
Goal = Literal["integrity", "confidentiality", "availability", "abuse"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Path = Annotated[str, Field(min_length=1, max_length=1000)]
Fact = list[str] | str | None


class Section(BaseModel):
    """A part of the system file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Range(Section):
    """A declared quantity: `low` and `high` are the 5 % and 95 % points of a lognormal."""

    low: Positive
    """The 5 % point."""
    high: Positive
    """The 95 % point."""
    unit: Name | None = None
    """A label such as EUR; all impacts of one file share it."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise ValueError(f"high ({self.high:g}) is below low ({self.low:g})")
        return self


class Capability(Section):
    """An actor's capability along one axis, as a lognormal."""

    typical: Positive
    """The median."""
    high: Positive
    """The 95 % point."""

    @model_validator(mode="after")
    def _ordered(self) -> Capability:
        if self.high < self.typical:
            raise ValueError(f"high ({self.high:g}) is below typical ({self.typical:g})")
        return self


class ActorSection(Section):
    """Somebody who may attack."""

    name: Name
    """Who it is; unique in the file."""
    access: AccessName
    """What the actor sees or touches."""
    queries: Capability | None = None
    """Rows that the actor can ask the model about one attacked case."""
    poison_share: Capability | None = None
    """The share of the training rows that the actor can write, between 0 and 1."""
    attempts_per_year: Range | None = None
    """How often a year the actor tries; a count without a unit."""


class ModelSection(Section):
    """Where the model is, what it is, and how it is trained. Exactly one of path, endpoint and entry says where."""

    path: Path | None = None
    """The model's file, relative to the system file."""
    endpoint: Path | None = None
    """The URL of a service that speaks the Open Inference Protocol, version 2."""
    entry: Path | None = None
    """A Python callable as FILE.py:FUNCTION or MODULE:FUNCTION."""
    factory: Path | None = None
    """FILE.py:FUNCTION that builds the module of a PyTorch state dict."""
    recipe: Path | None = None
    """How the model is trained again: `clone` for scikit-learn estimators, or FILE.py:FUNCTION, called with (X, y, seed)."""
    task: Literal["classification"] = "classification"
    """What the model does."""
    modality: Fact = None
    """What an input is."""
    artifact_format: Fact = None
    """The form of the model's file."""
    base_model: Fact = None
    """Whose model it started from; `none` when trained from the start."""
    classes: Annotated[list[str | int | bool], Field(min_length=2)] | None = None
    """The class labels, in the order of the model's outputs."""
    output: Literal["logits", "probabilities", "labels"] | None = None
    """What the model returns for a row."""

    @model_validator(mode="after")
    def _one_place(self) -> ModelSection:
        if sum(value is not None for value in (self.path, self.endpoint, self.entry)) != 1:
            raise ValueError("exactly one of path, endpoint and entry must be given")
        return self


class DataSection(Section):
    """One data set. Of the named columns, only `groups` and `sensitive` may also be inputs of the model."""

    name: Name
    """What to call it; unique in the file."""
    path: Path
    """The data's file or image folder, relative to the system file."""
    role: Literal["train", "holdout"] | None = None
    """Whether the model was trained on it."""
    split: Name | None = None
    """The column whose values `train` and `holdout` say which rows the model was trained on."""
    target: Name | None = None
    """The column that the model predicts."""
    id: Name | None = None
    """The column that names a row; without it, rows are named by the data set's name and their number."""
    cluster: Name | None = None
    """The column that correlated rows share, such as the patient."""
    sensitive: list[Name] = []
    """Columns that must not be inferable from the model."""
    groups: list[Name] = []
    """Columns whose groups are compared for unequal harm."""
    drop: list[Name] = []
    """Columns that are no input of the model."""
    data_sensitivity: Fact = None
    """How sensitive the rows are."""
    data_sources: Fact = None
    """Where the rows come from."""
    labels: Fact = None
    """Who made the labels."""


class ServingSection(Section):
    """How the model is reached and what it answers."""

    deploy: Fact = None
    """Where the model runs."""
    reach: Fact = None
    """Who can send it inputs."""
    auth: Fact = None
    """How callers prove who they are."""
    returns: Fact = None
    """What an answer holds."""
    explanations: Fact = None
    """Who sees explanations of answers."""
    weights_known_to: Fact = None
    """Who can read the weights besides those who must."""
    answers: Literal["label"] | Annotated[dict[Literal["round", "top_k"], Count], Field(min_length=1)] | None = None
    """Hardened answers: `label`, `{round: DIGITS}`, `{top_k: CLASSES}`, or both of the last two."""


class LifecycleSection(Section):
    """How the model changes."""

    retrain: Fact = None
    """How often the model is trained again."""
    registry: Fact = None
    """Where releases are kept, and whether they are signed."""
    federated: Fact = None
    """Whether training is shared between organisations or devices."""
    genai: Fact = None
    """Whether the system generates text or acts."""


class PeopleSection(Section):
    """Whom the model's answers concern, and who decides on them."""

    affects_people: Fact = None
    """Whether answers change what happens to people."""
    decision: Literal["automatic", "human_confirmed", "human_decides"] | None = None
    """Who decides on an answer."""


class ImpactSection(Section):
    """The loss of one successful event."""

    per_event: Range
    """The loss, in the file's unit."""


class AppetiteSection(Section):
    """The annual loss that the owner accepts."""

    annual_loss: Positive
    """In the file's unit."""
    at: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """The probability with which it must not be exceeded."""


class RelationSection(Section):
    """A linear relation between numeric columns that valid rows keep. Exactly one of at_most and equals is given."""

    weights: Annotated[dict[Name, Finite], Field(min_length=1)]
    """The factor of each column."""
    at_most: Finite | None = None
    """The largest weighted sum of a valid row."""
    equals: Finite | None = None
    """The weighted sum of a valid row."""

    @model_validator(mode="after")
    def _one_bound(self) -> RelationSection:
        if (self.at_most is None) == (self.equals is None):
            raise ValueError("exactly one of at_most and equals must be given")
        return self


class DomainSection(Section):
    """What an attacker may change."""

    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """The distance in which the change is limited."""
    radius: Positive | None = None
    """The largest change, in that distance."""
    low: Finite | None = None
    """The smallest value of an input."""
    high: Finite | None = None
    """The largest value of an input."""
    immutable: list[Name] = []
    """Columns that the attacker cannot change."""
    integer: list[Name] = []
    """Columns that stay whole numbers."""
    bounds: dict[Name, tuple[Finite, Finite]] = {}
    """The smallest and the largest value of a column."""
    costs: dict[Name, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """What a change of one unit of a column costs the attacker."""
    relations: list[RelationSection] = []
    """Linear relations that changed rows must keep."""

    @model_validator(mode="after")
    def _ordered(self) -> DomainSection:
        if self.low is not None and self.high is not None and self.high <= self.low:
            raise ValueError(f"high ({self.high:g}) is not above low ({self.low:g})")
        for column, (low, high) in self.bounds.items():
            if high < low:
                raise ValueError(f"the bounds of {column!r} are the wrong way round: {low:g}, {high:g}")
        return self


class System(Section):
    """A system that uses a machine-learning model, as its owner describes it to Holdfast."""

    system: Name
    """What to call the system."""
    owner: Name | None = None
    """Who answers for it."""
    model: ModelSection
    data: list[DataSection] = []
    """The data sets that the model is trained on and measured with."""
    serving: ServingSection = ServingSection()
    lifecycle: LifecycleSection = LifecycleSection()
    people: PeopleSection = PeopleSection()
    actors: list[ActorSection] = []
    """Who may attack."""
    impact: dict[Goal, ImpactSection] = {}
    """What one successful event costs, by what it harms."""
    appetite: AppetiteSection | None = None
    controls: list[Name] = []
    """Ids of the catalogue's controls that are said to be in place; a control counts only once it is measured."""
    domain: DomainSection = DomainSection()
    defaults: list[Name] = []
    """Dotted names of fields that hold a tool's default and not the user's word, such as `impact.integrity`."""

    def facts(self) -> Mapping[str, tuple[str, ...]]:
        """The stated facts, each with its values; unstated ones are absent. Facts of several data sets are united."""
        stated: dict[str, list[str]] = {}
        sections: list[Section] = [self.model, self.serving, self.lifecycle, self.people, *self.data]
        for section in sections:
            for name in FACT_FIELDS:
                value = getattr(section, name, None)
                if value:
                    stated.setdefault(name, []).extend([value] if isinstance(value, str) else value)
        return {name: tuple(dict.fromkeys(values)) for name, values in stated.items()}

    def silent_data(self) -> Mapping[str, tuple[str, ...]]:
        """For each fact that some data sets state and some do not, the names of those that do not."""
        silent: dict[str, tuple[str, ...]] = {}
        for name in DATA_FACTS:
            without = tuple(item.name for item in self.data if not getattr(item, name))
            if 0 < len(without) < len(self.data):
                silent[name] = without
        return silent


DATA_FACTS = ("data_sensitivity", "data_sources", "labels")
FACT_FIELDS = (
    "reach",
    "auth",
    "returns",
    "explanations",
    "modality",
    *DATA_FACTS,
    "retrain",
    "base_model",
    "artifact_format",
    "registry",
    "federated",
    "deploy",
    "weights_known_to",
    "affects_people",
    "genai",
)
