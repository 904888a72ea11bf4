"""Evidence: what a probe saw, as rows and not as a verdict.

A row says, for one unit, the capability that was spent until success, or that success did not come within what was
tested ("censored"). Every rate, curve and risk is computed from rows, so anybody can compute it again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Status = Literal["measured", "not_applicable", "unmeasured", "inconclusive", "failed"]
Strength = Literal["exact", "strong", "moderate", "weak"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Document(BaseModel):
    """A frozen piece of an assessment; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Document):
    """One unit under attack.

    Attributes:
        unit: a row id, a training run, a file: what was attacked. Never a personal value.
        cluster: what correlated units share, such as a patient; None when units are independent.
        capability: the capability at which the attack first succeeded; None when it never did (censored).
        seed: the seed of this unit's randomness.
        detail: further numbers of this unit, such as the distance of an adversarial example.
    """

    unit: str
    cluster: str | None = None
    capability: Finite | None = None
    seed: int = 0
    detail: dict[str, Finite | str | bool | None] = Field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether the attack succeeded within the tested capability."""
        return self.capability is not None


class Metric(Document):
    """One number a probe reports, with its interval and the counts behind it.

    Attributes:
        name: what it is, in the field's words ("TPR at 1 % FPR").
        value, low, high: the estimate and its 95 % interval; low and high are None for a plain count.
        unit: "" for a share in [0, 1], else the unit's name.
        successes, trials: the counts, where the number is a share.
        group: the subgroup it is about; None for all.
        note: a condition of the number that the reader must know.
    """

    name: str
    value: Finite
    low: Finite | None = None
    high: Finite | None = None
    unit: str = ""
    successes: int | None = None
    trials: int | None = None
    group: str | None = None
    note: str = ""


class ChangedCell(Document):
    """A feature that an adversarial example changed; values are kept only when the user opted in."""

    feature: str
    before: str | None = None
    after: str | None = None


class Example(Document):
    """One successful attack, to be looked at.

    Attributes:
        unit: the row id of the original.
        label_before, label_after: class names.
        distance: what the change cost, in the domain's units.
        changed: the changed cells of a table.
        image_before, image_after: base64 PNG; None for tables, and for images unless the user opted in.
    """

    unit: str
    label_before: str
    label_after: str
    distance: Finite | None = None
    changed: tuple[ChangedCell, ...] = ()
    image_before: str | None = None
    image_after: str | None = None


class Spent(Document):
    """What a measurement cost: rows asked of the model, backward passes, model calls and CPU seconds."""

    queries: int = 0
    backward: int = 0
    calls: int = 0
    cpu_seconds: Finite = 0.0


class Evidence(Document):
    """What one probe saw of one threat family on one target.

    Attributes:
        probe: the catalogue's probe id, such as P-EVA-LABEL.
        threats: the threats it is about.
        status: only `measured` carries rows that say anything; the other four never mean safe.
        reason: why it is not measured, or what limits the measurement.
        axis: what capability counts ("queries", "poison fraction", "severity"); "" when success has no axis.
        tested: the largest capability tested.
        rows: the units.
        effective: how many independent trials with everything else known the rate of success is known by, where that is less
            than rows and clusters say, such as when a threshold was estimated.
        subject: the column or group that the rows are about, where the probe chose one; "" otherwise.
        chance: the success rate of an attacker who does not use the model; only what exceeds it is the model's doing.
        strength: how much a stronger attacker might add.
        method: the attack and its settings, in one line a reader can follow.
        metrics, examples, spent: see there.
        findings: sentences that need no statistics ("column id predicts the label alone").
        digests: of the model, data and recipe that were measured.
        versions: of Holdfast, Python and the libraries that decide the result.
        seed: the seed of the probe.
    """

    probe: str
    threats: tuple[str, ...]
    status: Status
    reason: str = ""
    axis: str = ""
    tested: Finite | None = None
    rows: tuple[Row, ...] = ()
    effective: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    subject: str = ""
    chance: Finite = Field(default=0.0, ge=0, le=1)
    strength: Strength = "moderate"
    method: str = ""
    metrics: tuple[Metric, ...] = ()
    examples: tuple[Example, ...] = ()
    findings: tuple[str, ...] = ()
    spent: Spent = Field(default_factory=Spent)
    digests: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int = 0

    @model_validator(mode="after")
    def _measured_means_rows(self) -> Evidence:
        if self.status == "measured" and not self.rows and not self.metrics:
            raise ValueError("evidence without rows or metrics cannot be 'measured'")
        if self.status != "measured" and not self.reason:
            raise ValueError(f"evidence that is {self.status!r} must say why")
        if self.tested is not None and any(row.capability is not None and row.capability > self.tested for row in self.rows):
            raise ValueError("a row succeeded beyond the tested capability")
        return self

    def metric(self, name: str, group: str | None = None) -> Metric:
        """The metric of that name and group.

        Raises:
            KeyError: there is none.
        """
        for metric in self.metrics:
            if metric.name == name and metric.group == group:
                return metric
        raise KeyError(name)


def plain_detail(detail: dict[str, Any]) -> dict[str, float | str | bool | None]:
    """NumPy scalars as Python's own, NaN as None, so that a row can be written as JSON."""
    plain: dict[str, float | str | bool | None] = {}
    for key, value in detail.items():
        value = value.item() if hasattr(value, "item") else value
        plain[key] = None if isinstance(value, float) and value != value else value
    return plain
