"""P-PRI-MIA: who was in the training data, told from the model's answers.

1. The footing: enough holdout rows, a model that is not constant.
2. The gate: if train and holdout differ without the model, the result is "not assessable".
3. The attacks: a threshold on the model's confidence; with a recipe also shadow models, trained by it and answering in
   the form in which the service answers.
4. Rows: each evaluated training row, asked for once, and whether the best attack of the family names it at the lowest
   false positive rate that the holdout rows resolve. Intervals are widened for the size of the family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.attacks.privacy.identification import Area, Identification, area, identify, resolved
from holdfast.attacks.privacy.membership import Shadows, calibrated, likelihood_ratio, retrained, train_shadows
from holdfast.attacks.privacy.separability import Separability, separability
from holdfast.attacks.privacy.signals import censor, signals
from holdfast.core.errors import Inconclusive, Unmeasured
from holdfast.core.evidence import Evidence, Metric, Row, Spent
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import derive, generator
from holdfast.core.statistics import CONFIDENCE, rate
from holdfast.core.target import Dataset, Model, Target
from holdfast.probes.footing import footing, percent, served_access, share

Floats = NDArray[np.float64]
FEWEST_ROWS = 100
"""Non-members below which not even a false positive rate of 10 % is resolved."""
FEWEST_IN_GROUP = 50
MOST_GROUPS = 20
SWAPPED = 0.45
"""An area wholly below this is no chance: holdout rows look more like training rows than those do."""
ABSENCE = (
    "Absence of a finding is not evidence of safety, and no privacy budget follows from it: every number here is a lower bound "
    "on what the model gives away."
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one attack of the family found, at each resolved rate, with intervals corrected for the family."""

    name: str
    rates: Mapping[float, Identification]
    area: Area

    @property
    def lowest(self) -> Identification:
        """At the lowest resolved false positive rate."""
        return self.rates[min(self.rates)]


class MembershipInference:
    """Membership inference on the user's own model."""

    id: str = "P-PRI-MIA"
    threats: tuple[str, ...] = ("T-PRI-01",)
    access: str = "scores"

    def check(self, target: Target) -> None:
        """Training rows are needed; a recipe makes the attack stronger.

        Raises:
            Unmeasured: they were not given.
        """
        target.require_train()

    def work(self, target: Target, budget: Budget) -> Work:
        """One answer a record from the target and from each shadow, and the trainings of the shadows."""
        records = sum(min(_most(budget), len(data)) for data in (target.train, target.holdout) if data is not None)
        fits = budget.shadows if target.recipe is not None else 0
        return Work(predictions=records * (1 + fits), fits=fits, seconds=3.0)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            Unmeasured: no training rows.
            Inconclusive: too few rows, a constant model, or a split that is confounded.
        """
        train, holdout = target.require_train(), target.holdout
        footing(target.model, holdout, rows=FEWEST_ROWS, seed=seed)
        gate = separability(train, holdout, seed=derive(seed, "gate"))
        if gate.confounded:
            raise Inconclusive(
                f"not assessable: train and holdout differ without the model (AUC {gate.area.value:.3f}, "
                f"95 % CI {gate.area.low:.3f} to {gate.area.high:.3f})",
                hint="Give holdout rows from the same source and time as the training rows, split at random by person.",
            )
        pool, chosen, members = _pool(train, holdout, gate, _most(budget), seed)
        records = pool.take(chosen)
        rates = resolved(int((~members).sum()))
        if not rates:
            raise Inconclusive(
                f"only {int((~members).sum())} holdout rows have inputs that occur once; they resolve no false positive rate"
            )
        oracle = Oracle(target.model, served_access(target.model), len(records), 1)
        observed = signals(oracle, records)
        shadows, why_not = _shadows(target, pool, chosen, oracle.access, budget, seed, progress)
        observed, shadows, censored = _resolve(observed, shadows, oracle.access)
        family = _family(observed, shadows, oracle.access)
        clusters = None if records.clusters is None else (records.clusters[members], records.clusters[~members])
        found = [_judge(name, score, members, rates, clusters, len(family), seed) for name, score in family.items()]
        _same_roles(found)
        best = max(found, key=lambda one: (one.lowest.true_positive.low, one.area.value))
        named = best.lowest.named
        lowest = min(rates)
        rows = tuple(
            Row(
                unit=str(unit),
                cluster=None if clusters is None else str(clusters[0][index]),
                capability=1.0 if hit else None,
                seed=seed,
            )
            for index, (unit, hit) in enumerate(zip(records.ids[members], named, strict=True))
        )
        metrics = [*_headline(best, len(family)), *_each(found, len(family)), *_gate_metric(gate)]
        metrics += _spread(shadows, lowest, seed) if shadows is not None else []
        metrics += _groups(records, members, best)
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=_limits(gate, why_not, censored, records, members, train, holdout),
            rows=rows,
            effective=best.lowest.true_positive.effective_trials,
            chance=max(lowest, best.lowest.false_positive.value),
            strength="weak" if shadows is None else "strong",
            method=_method(list(family), oracle.access, shadows, lowest),
            metrics=tuple(metrics),
            findings=_findings(found, best, lowest, shadows is not None),
            spent=Spent(
                queries=int(oracle.cost.queries.sum()) + (shadows.queries if shadows is not None else 0), calls=oracle.cost.calls
            ),
        )


def _most(budget: Budget) -> int:
    """Records of each side that are evaluated: enough for a false positive rate of 1 % at any budget."""
    return int(np.clip(20 * budget.rows, 2000, 20_000))


def _pool(
    train: Dataset, holdout: Dataset, gate: Separability, most: int, seed: int
) -> tuple[Dataset, NDArray[np.int64], NDArray[np.bool_]]:
    """Train and holdout as one, the evaluated rows of it, and which of those are members."""
    random = generator(seed, "evaluated")
    inside = np.sort(random.permutation(gate.train)[:most])
    outside = np.sort(random.permutation(gate.holdout)[:most])
    x = pd.concat([train.x, holdout.x], ignore_index=True) if train.is_table else np.concatenate([train.x, holdout.x])
    together = train.clusters is not None and holdout.clusters is not None
    pool = Dataset(
        name="train and holdout",
        x=x,
        y=np.concatenate([train.y, holdout.y]),
        classes=train.classes,
        ids=np.concatenate([train.ids, holdout.ids]),
        groups=None
        if train.groups is None or holdout.groups is None
        else pd.concat([train.groups, holdout.groups], ignore_index=True),
        clusters=np.concatenate([d.clusters for d in (train, holdout) if d.clusters is not None]) if together else None,
    )
    chosen = np.concatenate([inside, len(train) + outside])
    return pool, chosen, np.arange(len(chosen)) < len(inside)


def _shadows(
    target: Target, pool: Dataset, chosen: NDArray[np.int64], access: Access, budget: Budget, seed: int, progress: Progress
) -> tuple[Shadows | None, str]:
    """Shadow signals, or None with the reason."""
    try:
        recipe = target.require_recipe()
        target.as_served(target.model)
    except Unmeasured as missing:
        return None, missing.what

    def fit(data: Dataset, seed: int) -> Model:
        return target.as_served(recipe.fit(data, seed))

    return train_shadows(fit, pool, chosen, budget.shadows, access=access, seed=derive(seed, "shadows"), progress=progress), ""


def _resolve(observed: Floats, shadows: Shadows | None, access: Access) -> tuple[Floats, Shadows | None, float]:
    """Signals with unresolved extremes pulled in, all of them together, and the share of the target's that were extreme."""
    if access < Access.SCORES:
        return observed, shadows, 0.0
    together = observed[None] if shadows is None else np.vstack([observed, shadows.signals])
    pulled, censored = censor(together)
    return pulled[0], None if shadows is None else replace(shadows, signals=pulled[1:]), censored


def _family(observed: Floats, shadows: Shadows | None, access: Access) -> dict[str, Floats]:
    name = "threshold" if access >= Access.SCORES else "gap"
    if shadows is None:
        return {name: observed}
    return {name: observed, "calibrated": calibrated(observed, shadows), "LiRA": likelihood_ratio(observed, shadows)}


def _judge(
    name: str,
    score: Floats,
    members: NDArray[np.bool_],
    rates: tuple[float, ...],
    clusters: tuple[NDArray[np.str_], NDArray[np.str_]] | None,
    family: int,
    seed: int,
) -> Found:
    confidence = 1 - (1 - CONFIDENCE) / family
    inside, outside = score[members], score[~members]
    return Found(
        name=name,
        rates={
            nominal: identify(inside, outside, nominal, seed=derive(seed, name), clusters=clusters, confidence=confidence)
            for nominal in rates
        },
        area=area(inside, outside, clusters=clusters, confidence=confidence),
    )


def _same_roles(found: list[Found]) -> None:
    """Refuse rows whose roles seem swapped, which would read as privacy.

    Raises:
        Inconclusive: an attack tells the sides apart the wrong way round.
    """
    for one in found:
        if one.area.high < SWAPPED:
            raise Inconclusive(
                "holdout rows look more like training rows than the training rows do "
                f"(AUC {one.area.value:.3f}, 95 % CI {one.area.low:.3f} to {one.area.high:.3f})",
                hint="Are the roles of train and holdout swapped, or was the model trained on other rows?",
            )


def _headline(best: Found, family: int) -> list[Metric]:
    note = f"best of {family} attacks ({best.name}); interval corrected for that" if family > 1 else best.name
    metrics = []
    for nominal, seen in sorted(best.rates.items()):
        metrics.append(share(f"TPR at {percent(nominal)} FPR", seen.true_positive, note=note))
        metrics.append(share(f"achieved FPR at nominal {percent(nominal)}", seen.false_positive, note=note))
    metrics.append(Metric(name="AUC", value=best.area.value, low=best.area.low, high=best.area.high, note=note))
    unresolved = [nominal for nominal in (0.1, 0.01, 0.001) if nominal not in best.rates]
    if unresolved:
        metrics[0] = metrics[0].model_copy(
            update={"note": f"{note}; {', '.join(map(percent, unresolved))} FPR unresolvable with this data"}
        )
    return metrics


def _each(found: list[Found], family: int) -> list[Metric]:
    metrics = []
    note = f"interval corrected for {family} attacks" if family > 1 else ""
    for one in found:
        metrics += [share(f"TPR at {percent(r)} FPR, {one.name}", seen.true_positive, note=note) for r, seen in one.rates.items()]
        metrics.append(Metric(name=f"AUC, {one.name}", value=one.area.value, low=one.area.low, high=one.area.high, note=note))
    return metrics


def _gate_metric(gate: Separability) -> list[Metric]:
    seen = gate.area
    note = "train against holdout, by a classifier that does not use the model; above 0.5 the measurement would be void"
    return [Metric(name="AUC without the model", value=seen.value, low=seen.low, high=seen.high, note=note)]


def _spread(shadows: Shadows, nominal: float, seed: int) -> list[Metric]:
    """How much the result moves when the model is trained again, each shadow playing the target once."""
    found = retrained(shadows, likelihood_ratio)
    values = [
        identify(inside, outside, nominal, seed=derive(seed, "again", index)).true_positive.value
        for index, (inside, outside) in enumerate(found)
        if nominal in resolved(len(outside))
    ]
    if len(values) < 4:
        return []
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation * math.sqrt(1 + 1 / len(values))
    return [
        Metric(
            name=f"TPR at {percent(nominal)} FPR, LiRA on retrained models",
            value=mean,
            low=max(0.0, mean - reach),
            high=min(1.0, mean + reach),
            note=f"mean of {len(values)} shadows as targets, and where the next would fall; they share data, so it is optimistic",
        )
    ]


def _groups(records: Dataset, members: NDArray[np.bool_], best: Found) -> list[Metric]:
    """The best attack's rate in each declared group that is large enough."""
    if records.groups is None:
        return []
    name = f"TPR at {percent(best.lowest.nominal)} FPR"
    metrics = []
    inside = records.groups.loc[members]
    for column in inside.columns:
        counts = inside[column].astype(str).value_counts()
        if len(counts) > MOST_GROUPS:
            continue
        for value in sorted(counts.index[counts >= FEWEST_IN_GROUP]):
            rows = (inside[column].astype(str) == value).to_numpy()
            cluster = None if records.clusters is None else records.clusters[members][rows]
            metrics.append(share(name, rate(best.lowest.named[rows], cluster), group=f"{column}={value}", note="not corrected"))
    return metrics


def _method(family: list[str], access: Access, shadows: Shadows | None, nominal: float) -> str:
    told = {
        "threshold": "threshold on the true-class logit",
        "gap": "gap attack (is the answered label right?)",
        "calibrated": "the same less the record's difficulty",
        "LiRA": "likelihood ratio with shrunk variances (LiRA, online)",
    }
    seen = "scores" if access >= Access.SCORES else "labels only"
    trained = f"; {len(shadows.signals)} shadow models on random halves of train and holdout" if shadows is not None else ""
    attacks = ", ".join(told[name] for name in family)
    return f"{attacks}; served {seen}, one query a record{trained}; success: named a member at {percent(nominal)} FPR"


def _limits(
    gate: Separability,
    why_not: str,
    censored: float,
    records: Dataset,
    members: NDArray[np.bool_],
    train: Dataset,
    holdout: Dataset,
) -> str:
    if why_not:
        limits = [f"evidence grade G0 (model, train, holdout): no shadow models, because {why_not}"]
    else:
        limits = [
            "evidence grade G1 (training recipe): shadows are drawn from the same finite rows as the target, which favours the "
            "attack a little"
        ]
    if gate.repeated:
        limits.append(f"{gate.repeated} rows were set aside because others have the same inputs")
    if gate.near_copies:
        limits.append("near-copies seem to lie in both train and holdout, so leakage is understated; split by person")
    if censored > 0.01:
        limits.append(
            f"{percent(round(censored, 2))} of the answers were exactly 0 or 1 or rounded, where the signal is censored"
        )
    if train.clusters is not None and holdout.clusters is not None:
        both = len(np.intersect1d(records.clusters[members], records.clusters[~members])) if records.clusters is not None else 0
        if both:
            limits.append(f"{both} clusters have rows in both train and holdout")
    return "; ".join(limits)


def _findings(found: list[Found], best: Found, nominal: float, grade_one: bool) -> tuple[str, ...]:
    """The sentences that an owner may be told, and no more."""
    seen = best.lowest
    level = (1 - CONFIDENCE) / (2 * len(found))
    leaks = min(one.lowest.p_value for one in found) <= level or any(_above_chance(one.area, len(found)) for one in found)
    hit = seen.true_positive
    interval = f"{percent(round(hit.value, 4))}, 95 % CI {percent(round(hit.low, 4))} to {percent(round(hit.high, 4))}"
    if leaks:
        expected = seen.false_positive.high
        floor = max(0, math.floor((hit.low - expected) / (1 - expected) * hit.trials)) if expected < 1 else 0
        at = f"at {percent(nominal)} FPR ({interval})"
        verdict = (
            f"These attacks, with this access, identify at least {floor} of {hit.trials} members beyond chance {at}: a lower "
            "bound on leakage."
            if floor
            else f"These attacks, with this access, tell members from non-members beyond chance, but how many {at} is uncertain."
        )
    else:
        verdict = f"No attack told members from non-members beyond chance at {percent(nominal)} FPR ({interval}) or by AUC."
    stronger = "canaries inserted before training" if grade_one else "a training recipe (minutes of work) or canaries"
    return verdict, f"{ABSENCE} Stronger attackers need {stronger}."


def _above_chance(seen: Area, family: int) -> bool:
    """Whether the area exceeds one half at the level of half the family's share; its interval is at the family's share."""
    reach = float(stats.norm.ppf(1 - (1 - CONFIDENCE) / family / 2))
    stricter = float(stats.norm.ppf(1 - (1 - CONFIDENCE) / (4 * family)))
    return seen.value - (seen.value - seen.low) * stricter / reach > 0.5
