"""Membership inference with shadow models: does the target answer a record as models trained on it do, or as others do?

1. `train_shadows` trains models by the user's recipe on independent random halves of train and holdout together, and
   records each one's signal on every record. The target is never among them.
2. `likelihood_ratio` compares the target's signal on a record with the signals of shadows that had it and that had not
   (LiRA, online); `calibrated` only takes the record's difficulty off.
3. `retrained` lets each shadow play the target in turn, to show how much the result varies from training to training.

Sources: Carlini et al. (2022), "Membership Inference Attacks From First Principles", algorithm 1; Watson et al. (2022),
"On the Importance of Difficulty Calibration in Membership Inference Attacks".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.privacy.signals import signals
from holdfast.core.errors import InvalidData
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.progress import Progress, Silent
from holdfast.core.seeds import derive, generator
from holdfast.core.target import Dataset

Floats = NDArray[np.float64]
Variance = Literal["shrunk", "record", "pooled"]
FEWEST = 4
"""Shadow models below which a record is too rarely both in and out."""


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """What shadow models answered.

    Attributes:
        signals: (s, n) the membership signal of each shadow on each record.
        member: (s, n) whether the shadow was trained on the record.
        queries: rows they were asked.
    """

    signals: Floats
    member: NDArray[np.bool_]
    queries: int = 0

    def __post_init__(self) -> None:
        if self.signals.shape != self.member.shape or self.signals.ndim != 2:
            raise InvalidData(f"signals of shape {self.signals.shape} for members of shape {self.member.shape}")

    def without(self, shadow: int) -> Shadows:
        """All but one."""
        kept = np.arange(len(self.signals)) != shadow
        return Shadows(signals=self.signals[kept], member=self.member[kept])


def train_shadows(
    fit: Callable[[Dataset, int], Predictor],
    pool: Dataset,
    records: NDArray[np.int64],
    count: int,
    *,
    access: Access,
    seed: int,
    progress: Progress | None = None,
) -> Shadows:
    """Train shadow models and ask each for every record.

    Each is trained on an independent random half of the pool, rows of a cluster together: not on balanced halves, in
    which the others' counts would give a record's own membership away.

    Args:
        fit: trains a model on a data set with a seed, and gives it as the service would show it.
        pool: train and holdout together.
        records: (n,) rows of the pool whose signals are wanted.
        count: how many shadows, at least `FEWEST`.
        access: what the attacker sees of the target, and so what he uses of his shadows.
        seed: decides halves and trainings.
        progress: told after each shadow.

    Raises:
        InvalidData: too few shadows are asked for.
    """
    if count < FEWEST:
        raise InvalidData(f"{count} shadow models; a likelihood ratio needs at least {FEWEST}")
    progress = progress or Silent()
    names, place = np.unique(pool.clusters if pool.clusters is not None else np.arange(len(pool)), return_inverse=True)
    wanted = pool.take(records)
    answers, members = [], []
    for shadow in range(count):
        progress.advance("shadow models", shadow, count)
        drawn = np.zeros(len(names), dtype=bool)
        drawn[generator(seed, "half", shadow).permutation(len(names))[: len(names) // 2]] = True
        member = drawn[place]
        model = fit(pool.take(member), derive(seed, "shadow", shadow) % 2**31)
        answers.append(signals(Oracle(model, access, len(wanted), 1), wanted))
        members.append(member[records])
    progress.advance("shadow models", count, count)
    return Shadows(signals=np.stack(answers), member=np.stack(members), queries=count * len(wanted))


def likelihood_ratio(
    observed: Floats, shadows: Shadows, *, variance: Variance = "shrunk", weight: float = 6.0, mean_weight: float = 1.0
) -> Floats:
    """(n,) log-likelihood ratio of "trained on the record" against "not", under normal signals.

    The variance of a record's signal is estimated from its own few shadows (`record`), from all records (`pooled`, the
    paper's fixed variance), or from its own with the pooled one worth `weight` further observations (`shrunk`: the
    posterior of a normal-inverse-gamma model, with as little as one shadow on a side). Under `shrunk` a record's mean
    among members is drawn towards its mean among non-members plus the typical gain, worth `mean_weight` observations.

    Args:
        observed: (n,) the target's signals, finite.
        shadows: what shadows answered on the same records, finite.
        variance: see above.
        weight, mean_weight: of the prior, in observations.
    """
    counts, means, squares = _moments(shadows)
    both = (counts[0] > 0) & (counts[1] > 0)
    gain = float((means[1] - means[0])[both].mean()) if both.any() else 0.0
    filled = [np.where(counts[0] > 0, means[0], means[1] - gain), np.where(counts[1] > 0, means[1], means[0] + gain)]
    if variance == "shrunk" and mean_weight > 0:
        filled[1] = (counts[1] * filled[1] + mean_weight * (filled[0] + gain)) / (counts[1] + mean_weight)
    ratio = np.zeros(len(observed))
    for side, sign in ((1, 1.0), (0, -1.0)):
        freedom = np.maximum(counts[side] - 1, 0)
        pooled = max(float(squares[side].sum() / max(freedom.sum(), 1)), 1e-12)
        if variance == "pooled":
            spread = np.full(len(observed), pooled)
        elif variance == "record":
            spread = np.where(freedom > 0, squares[side] / np.maximum(freedom, 1), pooled)
        else:
            spread = (weight * pooled + squares[side]) / (weight + freedom)
        spread = np.maximum(spread, 1e-6 * pooled)
        ratio += sign * -0.5 * (np.log(spread) + (observed - filled[side]) ** 2 / spread)
    return ratio


def calibrated(observed: Floats, shadows: Shadows) -> Floats:
    """(n,) the target's signal less the record's mean signal among shadows that were not trained on it."""
    counts, means, _ = _moments(shadows)
    out = counts[0] > 0
    typical = float(means[0][out].mean()) if out.any() else 0.0
    return observed - np.where(out, means[0], typical)


def retrained(shadows: Shadows, attack: Callable[[Floats, Shadows], Floats]) -> list[tuple[Floats, Floats]]:
    """For each shadow as target, with only the others as its shadows: the attack's signals on its members and non-members.

    The shadows share data with each other, so the spread over them is an optimistic picture of the spread over trainings.
    """
    found = []
    for shadow, (observed, member) in enumerate(zip(shadows.signals, shadows.member, strict=True)):
        score = attack(observed, shadows.without(shadow))
        found.append((score[member], score[~member]))
    return found


def _moments(shadows: Shadows) -> tuple[Floats, Floats, Floats]:
    """Counts, means and sums of squared deviations, each (2, n): row 0 over non-members, row 1 over members."""
    counts, means, squares = [], [], []
    for side in (~shadows.member, shadows.member):
        count = side.sum(axis=0).astype(np.float64)
        mean = np.where(side, shadows.signals, 0.0).sum(axis=0) / np.maximum(count, 1)
        counts.append(count)
        means.append(mean)
        squares.append((np.where(side, shadows.signals - mean, 0.0) ** 2).sum(axis=0))
    return np.stack(counts), np.stack(means), np.stack(squares)
