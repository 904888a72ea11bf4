"""The assessment document: everything that was found about one target at one time, in one versioned JSON file.

Reports, the gate and the console are renderings of this document and compute nothing themselves.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from holdfast.core.evidence import Document, Evidence, Finite
from holdfast.risk.register import Decision, RiskRegister
from holdfast.threats.derivation import Threat

SCHEMA: Literal["holdfast-assessment/1"] = "holdfast-assessment/1"


class SystemSummary(Document):
    """The system as it was described, without its paths' contents."""

    name: str
    owner: str | None = None
    file: str
    model_path: str | None = None
    framework: str
    modality: str
    facts: dict[str, tuple[str, ...]]
    controls: tuple[str, ...] = ()
    answers: str = "as computed"
    defaults: tuple[str, ...] = ()


class DataSummary(Document):
    """One data set that was used."""

    name: str
    rows: int
    features: int
    classes: tuple[str, ...]
    sensitive: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Utility(Document):
    """How well the model does its job on the holdout rows; a control's cost is a difference of these.

    Attributes:
        rows: of the holdout data.
        accuracy, accuracy_low, accuracy_high: with the 95 % interval.
        majority_share: the accuracy of always naming the commonest class.
        auc: None for a model without scores.
        correct: hexadecimal bits, one a row in the rows' order, set where the model is right; "" when they are not known.
        clusters: the code of each row's cluster, with commas between; "" when rows are independent.
        auc_parts: what each row moves the AUC by, in millionths, with commas between; "" when it is not known.
    """

    rows: int
    accuracy: Finite
    accuracy_low: Finite
    accuracy_high: Finite
    majority_share: Finite
    auc: Finite | None = None
    correct: str = Field(default="", pattern=r"^([0-9a-f]{2})*$")
    clusters: str = Field(default="", pattern=r"^([0-9]{1,9}(,[0-9]{1,9})*)?$")

    auc_parts: str = Field(default="", pattern=r"^(-?[0-9]{1,9}(,-?[0-9]{1,9})*)?$")

    @model_validator(mode="after")
    def _every_row_once(self) -> Utility:
        if self.correct and len(self.correct) != 2 * ((self.rows + 7) // 8):
            raise ValueError(f"correct does not tell of {self.rows} rows")
        if self.clusters and self.clusters.count(",") + 1 != self.rows:
            raise ValueError(f"clusters does not tell of {self.rows} rows")
        if self.auc_parts and self.auc_parts.count(",") + 1 != self.rows:
            raise ValueError(f"auc_parts does not tell of {self.rows} rows")
        return self

    def correct_rows(self) -> NDArray[np.bool_] | None:
        """(rows,) whether the model is right; None when that is not known."""
        if not self.correct:
            return None
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.correct), dtype=np.uint8), count=self.rows).astype(bool)

    def row_clusters(self) -> NDArray[np.int64] | None:
        """(rows,) cluster codes; None when rows are independent."""
        return np.array(self.clusters.split(","), dtype=np.int64) if self.clusters else None

    def auc_by_row(self) -> NDArray[np.float64] | None:
        """(rows,) what each row moves the AUC by; None when that is not known."""
        return np.array(self.auc_parts.split(","), dtype=np.float64) / 1e6 if self.auc_parts else None


# Every class has an attribute `register` from ABCMeta; without `Field(...)` pydantic would take that method for the default.
warnings.filterwarnings("ignore", message='Field name "register" in "Assessment" shadows', category=UserWarning)


class Assessment(Document):
    """The primary artefact.

    Attributes:
        format: the schema's version.
        created, seconds: when it was made (RFC 3339, UTC), and how long measuring took.
        holdfast, versions: what made it.
        digests: of model, train, holdout, recipe and the system file.
        seed, budget: with the digests, decide everything but the times.
        threats: the whole catalogue as it stands for this system.
        evidence: of every probe that was planned, whatever its status.
        measurable: threats that some installed probe measures, each with the probes' ids, whether or not they were run.
        register: the risks.
        decisions: those recorded, lapsed ones included.
        personal_values: whether the user opted in to values in examples.
        seal: SHA-256 of the document without the seal; it shows damage and careless edits, not a forger.
    """

    model_config = ConfigDict(
        json_schema_extra={"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:holdfast:schema:assessment:1"}
    )

    format: Literal["holdfast-assessment/1"] = SCHEMA
    created: str
    seconds: Finite
    holdfast: str
    versions: dict[str, str]
    system: SystemSummary
    data: tuple[DataSummary, ...]
    utility: Utility | None
    digests: dict[str, str]
    seed: int
    budget: str
    threats: tuple[Threat, ...]
    evidence: tuple[Evidence, ...]
    measurable: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    register: RiskRegister = Field(...)
    decisions: tuple[Decision, ...] = ()
    personal_values: bool = False
    notes: tuple[str, ...] = Field(default=())
    seal: str = ""

    def sealed(self) -> Assessment:
        """The same document with its seal set."""
        return self.model_copy(update={"seal": self.computed_seal()})

    def computed_seal(self) -> str:
        """SHA-256, in hexadecimal, of the canonical JSON of everything but the seal."""
        content = self.model_dump(mode="json", exclude={"seal"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def evidence_for(self, threat: str) -> tuple[Evidence, ...]:
        """All evidence about one threat."""
        return tuple(item for item in self.evidence if threat in item.threats)
