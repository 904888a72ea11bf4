"""Attribute inference: filling in a person's missing sensitive field with the model's help, against doing so without it.

Most of what passes for attribute inference is imputation: the field follows from the person's other fields, model or no
model (Jayaraman and Evans 2022, "Are Attribute Inference Attacks Just Imputation?"). So two attackers guess on the same
records. Both know the other fields, the label, and a sample of other people with the field. The imputer uses those
alone; the other also asks the model for each record with every candidate value filled in, and

- `posterior`: weighs the prior of the other fields by how well each candidate explains the label (Fredrikson et al. 2014);
- `evidence`: weighs the imputer's own posterior by it, which seldom does worse than the imputer;
- `memory`: takes the candidate that makes the model surest of the label, which finds remembered records, and the imputer's
  guess among those that do so equally (Yeom et al. 2018, section 5);
- `stacked`: learns from the sample how the answers bear on the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.attacks.features import Booster, Encoder
from holdfast.attacks.privacy.signals import censor, true_class_logit
from holdfast.core.errors import Inconclusive, InvalidData
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import derive, generator
from holdfast.core.target import Dataset

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
STRATEGIES = ("posterior", "evidence", "memory", "stacked")
MOST_VALUES = 10
"""Distinct values up to which a field is guessed exactly; numbers with more are guessed as one of `BANDS` bands."""
BANDS = 5
FOLDS = 3
TRUST = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""How far the attacker's model of the field is trusted over the field's frequencies; the best in cross-validation is used."""
BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The values among which a field is guessed.

    Attributes:
        column: the field.
        values: one to fill in for each candidate, of the column's own type.
        edges: inner edges of a number's bands; None when values are guessed exactly.
    """

    column: str
    values: tuple[Any, ...]
    edges: tuple[float, ...] | None = None

    @classmethod
    def of(cls, x: pd.DataFrame, column: str) -> Candidates:
        """From the attacker's sample.

        Raises:
            Inconclusive: the field has a single value there.
        """
        known = x[column].dropna()
        counts = known.value_counts()
        order = sorted(counts.index, key=lambda value: (-counts[value], str(value)))
        if len(order) < 2:
            raise Inconclusive(f"column {column!r} has fewer than two values in the attacker's sample; there is nothing to guess")
        if len(order) <= MOST_VALUES or not pd.api.types.is_numeric_dtype(known):
            return cls(column=column, values=tuple(order[:MOST_VALUES]))
        ordered = known.sort_values()
        numbers = ordered.to_numpy(dtype=np.float64)
        edges = np.unique(np.quantile(numbers, np.arange(1, BANDS) / BANDS, method="lower"))
        edges = edges[edges < numbers[-1]]
        band = np.searchsorted(edges, numbers, side="left")
        middles = [int(np.median(np.flatnonzero(band == index))) for index in range(len(edges) + 1)]
        return cls(column=column, values=tuple(ordered.iloc[middle] for middle in middles), edges=tuple(edges.tolist()))

    def codes(self, x: pd.DataFrame) -> Codes:
        """(n,) the candidate that each row holds; -1 for a missing cell and for a value that is no candidate."""
        column = x[self.column]
        if self.edges is None:
            found = np.full(len(x), -1, dtype=np.int64)
            for code, value in enumerate(self.values):
                found[(column == value).fillna(False).to_numpy(dtype=bool)] = code
            return found
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isnan(numbers), -1, np.searchsorted(np.asarray(self.edges), numbers, side="left")).astype(np.int64)

    def filled(self, x: pd.DataFrame, code: int) -> pd.DataFrame:
        """The rows with candidate `code` filled in, types kept."""
        column = pd.Series([self.values[code]] * len(x), index=x.index).astype(x[self.column].dtype)
        return x.assign(**{self.column: column})


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What both attackers guessed of the same records.

    Attributes:
        truth: (n,) the candidate that each record holds.
        imputer: (n,) guesses without the model.
        with_model: (n,) guesses with the model, by strategy.
        candidates: how many values there are, which is how many queries each record costs.
    """

    truth: Codes
    imputer: Codes
    with_model: dict[str, Codes]
    candidates: int


@dataclass(frozen=True, kw_only=True)
class FieldModel:
    """A boosted model of the field, drawn towards the field's frequencies as far as cross-validation asks for.

    Boosting on a few hundred records is surer than it is right. An imputer that is not makes a stronger baseline, and
    lets the model's answers weigh what they should.
    """

    model: Booster
    frequencies: Floats
    trust: float

    @classmethod
    def fitted(cls, features: Floats, codes: Codes, categorical: list[bool] | None, seed: int) -> FieldModel:
        """Trained on (n, d) features and (n,) candidates, each of which occurs."""
        frequencies = np.bincount(codes) / len(codes)
        fold = generator(seed, "folds").permutation(np.arange(len(codes)) % FOLDS)
        held = np.full(len(codes), np.nan)
        for index in range(FOLDS):
            kept, left = fold != index, fold == index
            if len(np.unique(codes[kept])) < len(frequencies):
                continue
            model = Booster(categorical, derive(seed, index), learning_rate=0.05).fit(features[kept], codes[kept])
            held[left] = model.shares(features[left])[np.arange(left.sum()), codes[left]]
        seen = ~np.isnan(held)
        losses = {
            trust: -float(np.log(trust * held[seen] + (1 - trust) * frequencies[codes[seen]]).mean()) if seen.any() else 0.0
            for trust in TRUST
        }
        model = Booster(categorical, seed, learning_rate=0.05).fit(features, codes)
        return cls(model=model, frequencies=frequencies, trust=min(TRUST, key=lambda trust: losses[trust]))

    def shares(self, features: Floats) -> Floats:
        """(n, candidates) probabilities."""
        return self.trust * self.model.shares(features) + (1 - self.trust) * self.frequencies


class FieldGuesser:
    """Prepares both attackers on a sample of people whose field is known, then lets them guess that of others.

    Args:
        oracle: of the served model, over the sample's rows; each costs one query a candidate.
        sample: the attacker's own records, disjoint from all victims. Of each cluster one record is used: several of one
            person would teach the imputer to recognise people instead of the field.
        column: the sensitive field.
        seed: of the attackers' training.

    Raises:
        InvalidData: the data is no table or lacks the column.
        Inconclusive: the sample has too few rows or values.
    """

    def __init__(self, oracle: Oracle, sample: Dataset, column: str, *, seed: int) -> None:
        if not sample.is_table or column not in sample.x.columns:
            raise InvalidData(f"column {column!r} is not a column of a table")
        apart = _one_a_cluster(sample, seed)
        self.candidates = Candidates.of(sample.x.iloc[apart], column)
        codes = self.candidates.codes(sample.x)
        known = apart[codes[apart] >= 0]
        if len(known) < 50:
            raise Inconclusive(f"only {len(known)} of the attacker's records have a value of {column!r}")
        self._codes = codes[known]
        if len(np.unique(self._codes)) < len(self.candidates.values):
            raise InvalidData(f"candidates of {column!r} that no record holds")
        self._column = column
        self._access = oracle.access
        self._encoder = Encoder.of(sample.x.drop(columns=column))
        known_rows = sample.take(known)
        others = self._others(known_rows)
        answers = self._ask(oracle, known_rows, known)
        if self._access < Access.SCORES:
            k = len(sample.classes)
            confusion = np.ones((k, k))
            own = answers[np.arange(len(known)), self._codes]
            np.add.at(confusion, (own, known_rows.y), 1)
            self._meaning = np.log(confusion / confusion.sum(axis=1, keepdims=True))
        self._prior = self._learn("prior", others[:, :-1], seed)
        self._imputer = self._learn("imputer", others, seed)
        self._stacked = self._learn("stacked", np.column_stack([others, answers]), seed)

    def guess(self, oracle: Oracle, victims: Dataset) -> Guesses:
        """Guess the field of each victim.

        Args:
            oracle: of the served model, over the victims; each costs one query a candidate.
            victims: records whose field holds one of the candidates.
        """
        truth = self.candidates.codes(victims.x)
        if (truth < 0).any():
            raise InvalidData(f"{int((truth < 0).sum())} victims hold no candidate value of {self._column!r}")
        others = self._others(victims)
        answers = self._ask(oracle, victims, np.arange(len(victims)))
        fit = self._explains(answers, victims.y)
        imputed = self._imputer.shares(others)
        with np.errstate(divide="ignore"):
            prior, posterior = np.log(self._prior.shares(others[:, :-1])), np.log(imputed)
        return Guesses(
            truth=truth,
            imputer=imputed.argmax(axis=1),
            with_model={
                "posterior": (prior + fit).argmax(axis=1),
                "evidence": (posterior + fit).argmax(axis=1),
                "memory": np.where(fit >= fit.max(axis=1, keepdims=True) - 1e-9, imputed, -1.0).argmax(axis=1),
                "stacked": self._stacked.shares(np.column_stack([others, answers])).argmax(axis=1),
            },
            candidates=len(self.candidates.values),
        )

    def _learn(self, name: str, features: Floats, seed: int) -> FieldModel:
        """The attacker's model of the field on encoded other fields and whatever columns follow them."""
        mask = self._encoder.categorical
        extra = features.shape[1] - (0 if mask is None else len(mask))
        categorical = None if mask is None else [*mask, *[False] * extra]
        return FieldModel.fitted(features, self._codes, categorical, derive(seed, name))

    def _others(self, data: Dataset) -> Floats:
        """(n, d + 1) the other fields and, last, the label."""
        return np.column_stack([self._encoder(data.x.drop(columns=self._column)), data.y])

    def _ask(self, oracle: Oracle, data: Dataset, owner: NDArray[np.int64]) -> Any:
        """(n, candidates) what the model answers with each candidate filled in: the label's logit, or the answered label."""
        columns = []
        for code in range(len(self.candidates.values)):
            parts: list[NDArray[Any]] = []
            for start in range(0, len(data), BATCH):
                rows = slice(start, start + BATCH)
                x = self.candidates.filled(data.x.iloc[rows], code)
                if self._access >= Access.SCORES:
                    parts.append(true_class_logit(oracle.scores(x, owner[rows]), data.y[rows]))
                else:
                    parts.append(oracle.labels(x, owner[rows]))
            columns.append(np.concatenate(parts))
        answers = np.stack(columns, axis=1)
        return censor(answers)[0] if self._access >= Access.SCORES else answers

    def _explains(self, answers: Any, y: NDArray[np.int64]) -> Floats:
        """(n, candidates) log-probability of each record's label under each candidate, as the answers tell it."""
        if self._access >= Access.SCORES:
            return np.asarray(-np.logaddexp(0.0, -answers), dtype=np.float64)
        return np.asarray(self._meaning[answers, y[:, None]], dtype=np.float64)


def _one_a_cluster(data: Dataset, seed: int) -> Codes:
    """The index of one random row of each cluster, in order; of all rows when they are independent."""
    if data.clusters is None:
        return np.arange(len(data))
    order = generator(seed, "one a cluster").permutation(len(data))
    _, first = np.unique(data.clusters[order], return_index=True)
    return np.sort(order[first])
