"""The system file, `holdfast.yaml`: what the user says about the model, its data, its service, its people and its attackers.

Every field that the catalogue's rules look at is a fact; a fact that is not stated is unknown, and an unknown fact never
removes a threat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

AccessName = Literal[
    "labels", "scores", "gradients", "training rows", "feedback", "model file", "host", "network", "updates", "none"
]
Goal = Literal["integrity", "confidentiality", "availability", "abuse"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the system file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(Section):
    """A declared quantity: `low` and `high` are the 5 % and 95 % points of a lognormal.

    `unit` is a label such as EUR; all impacts of one file must share it.
    """

    low: Positive
    high: Positive
    unit: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise ValueError(f"high ({self.high:g}) is below low ({self.low:g})")
        return self


class Capability(Section):
    """An actor's capability along one axis: median `typical` and 95 % point `high` of a lognormal."""

    typical: Positive
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Capability:
        if self.high < self.typical:
            raise ValueError(f"high ({self.high:g}) is below typical ({self.typical:g})")
        return self


class ActorSection(Section):
    """Somebody who may attack.

    `queries` is in rows per attacked case, `poison_share` a share of training rows, `attempts_per_year` a lognormal range.
    """

    name: str
    access: AccessName
    queries: Capability | None = None
    poison_share: Capability | None = None
    attempts_per_year: Range | None = None


class ModelSection(Section):
    """Where the model is, what it is, and how it is trained.

    Exactly one of `path`, `endpoint` and `entry` says where. `factory` (FILE.py:FUNCTION) builds the module of a PyTorch
    state dict; `recipe` is `clone` for scikit-learn estimators or FILE.py:FUNCTION, called with (X, y, seed).
    """

    path: str | None = None
    endpoint: str | None = None
    entry: str | None = None
    factory: str | None = None
    recipe: str | None = None
    task: Literal["classification"] = "classification"
    modality: list[str] | str | None = None
    artifact_format: str | None = None
    base_model: str | None = None
    classes: list[str | int | bool] | None = None
    output: Literal["logits", "probabilities", "labels"] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> ModelSection:
        if sum(value is not None for value in (self.path, self.endpoint, self.entry)) != 1:
            raise ValueError("exactly one of path, endpoint and entry must be given")
        return self


class DataSection(Section):
    """One data set.

    `role` says whether the model was trained on it; where `split` names a column, its values `train` and `holdout` do.
    `id`, `cluster`, `groups` and `drop` name columns; only `groups` and `sensitive` may also be model inputs.
    """

    name: str
    path: str
    role: Literal["train", "holdout"] | None = None
    split: str | None = None
    target: str | None = None
    id: str | None = None
    cluster: str | None = None
    sensitive: list[str] = []
    groups: list[str] = []
    drop: list[str] = []
    data_sensitivity: list[str] | str | None = None
    data_sources: list[str] | str | None = None
    labels: list[str] | str | None = None


class ServingSection(Section):
    """How the model is reached and what it answers. `answers` hardens them: `label`, `round: 2`, `top_k: 3`."""

    deploy: list[str] | str | None = None
    reach: list[str] | str | None = None
    auth: list[str] | str | None = None
    returns: list[str] | str | None = None
    explanations: list[str] | str | None = None
    weights_known_to: list[str] | str | None = None
    answers: Literal["label"] | dict[Literal["round", "top_k"], int] | None = None


class LifecycleSection(Section):
    """How the model changes."""

    retrain: list[str] | str | None = None
    registry: list[str] | str | None = None
    federated: list[str] | str | None = None
    genai: list[str] | str | None = None


class PeopleSection(Section):
    """Whom the model's answers concern, and who decides on them."""

    affects_people: list[str] | str | None = None
    decision: Literal["automatic", "human_confirmed", "human_decides"] | None = None


class ImpactSection(Section):
    """The loss of one successful event."""

    per_event: Range


class AppetiteSection(Section):
    """The annual loss that the owner accepts, not to be exceeded with probability `at`."""

    annual_loss: Positive
    at: Annotated[float, Field(gt=0, lt=1)] = 0.95


class RelationSection(Section):
    """A linear relation between numeric columns that valid rows keep."""

    weights: dict[str, float]
    at_most: float | None = None
    equals: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> RelationSection:
        if (self.at_most is None) == (self.equals is None):
            raise ValueError("exactly one of at_most and equals must be given")
        return self


class DomainSection(Section):
    """What an attacker may change."""

    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    radius: Positive | None = None
    low: float | None = None
    high: float | None = None
    immutable: list[str] = []
    integer: list[str] = []
    bounds: dict[str, tuple[float, float]] = {}
    costs: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    relations: list[RelationSection] = []


class System(Section):
    """The whole system file."""

    system: str
    owner: str | None = None
    model: ModelSection
    data: list[DataSection] = []
    serving: ServingSection = ServingSection()
    lifecycle: LifecycleSection = LifecycleSection()
    people: PeopleSection = PeopleSection()
    actors: list[ActorSection] = []
    impact: dict[Goal, ImpactSection] = {}
    appetite: AppetiteSection | None = None
    controls: list[str] = []
    domain: DomainSection = DomainSection()
    defaults: list[str] = []
    """Dotted names of fields that hold a tool's default and not the user's word, such as `impact.integrity`."""

    def facts(self) -> Mapping[str, tuple[str, ...]]:
        """The stated facts, each with its values; unstated ones are absent. Facts of several data sets are united."""
        stated: dict[str, list[str]] = {}
        sections: list[Section] = [self.model, self.serving, self.lifecycle, self.people, *self.data]
        for section in sections:
            for name in FACT_FIELDS:
                value = getattr(section, name, None)
                if value is None:
                    continue
                stated.setdefault(name, []).extend([value] if isinstance(value, str) else value)
        return {name: tuple(dict.fromkeys(values)) for name, values in stated.items()}


FACT_FIELDS = (
    "reach",
    "auth",
    "returns",
    "explanations",
    "modality",
    "data_sensitivity",
    "data_sources",
    "labels",
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
