"""Whether a robust accuracy can be believed, and the number that remains true.

1. Signals of the answers: randomness, dependence on the batch.
2. Signals of the gradients and of following them, where the model gives any.
3. The suite. A model with random answers is attacked in expectation.
4. Order: whoever sees gradients must not do worse than whoever doesn't. Samples that hold against the model's own gradients
   and fall to its answers, its labels or its straight-through twin say that the gradients mislead.
5. Each final sample is judged again; under random answers by many evaluations that no attack has seen, with an interval.

The verdict is `believable`, or `not believable` with each mechanism that showed. The robust accuracy that is reported is that of
the strongest attack in either case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.attacks.evasion.adaptive import EOT
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.losses import margin
from holdfast.attacks.evasion.signals import Signal, answer_signals, ascent_signals, gradient_signals, hidden_signals
from holdfast.attacks.evasion.straight_through import StraightThrough, straight_through
from holdfast.attacks.evasion.suite import Robustness, Suite
from holdfast.core.arrays import Array, as_like, copied
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError, HoldfastError, Inconclusive, InvalidData
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.seeds import SampleStreams, derive
from holdfast.core.statistics import wilson

EVALUATIONS = 60
"""Fresh evaluations of each final sample of a model with random answers."""
SELECTION = 20
"""Evaluations by which the worst candidate for each sample is chosen."""
DRAWS = 10
"""Evaluations behind each answer and gradient of an attack in expectation."""
PRESSING = 50
"""Steps that push the share of right answers down further once most are wrong."""
PATIENT = 4000
"""Queries for each sample that stands when neither gradients nor a twin lead an attack."""
FEWEST = 8
"""Samples that the model must get right."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The verdict and what it rests on.

    Attributes:
        signals: all that were looked at.
        claimed: what plain PGD by cross-entropy reports as robust accuracy; NaN where the model gives no gradients.
        robust_accuracy: the number that remains: under the strongest attack, over all samples.
        low, high: its 95 % interval.
        shares: (n,) of right answers to each final sample; 0 or 1 where answers are not random.
        evaluations: of each final sample.
        adversarial: (n, ...) the final samples.
        suite: what each attack did.
        notes: what could not be done, and why.
        seconds: CPU seconds.
    """

    signals: tuple[Signal, ...]
    claimed: float
    robust_accuracy: float
    low: float
    high: float
    shares: NDArray[np.float64]
    evaluations: int
    adversarial: Array
    suite: Robustness
    notes: tuple[str, ...]
    seconds: float

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What speaks against the model's gradients or single answers."""
        return tuple(dict.fromkeys(signal.mechanism for signal in self.signals if signal.fired))

    @property
    def believable(self) -> bool:
        """Whether an evaluation by gradients tells the truth about this model."""
        return not self.mechanisms

    @property
    def verdict(self) -> str:
        """`believable`, or `not believable: ` and the mechanisms."""
        return "believable" if self.believable else f"not believable: {'; '.join(self.mechanisms)}"


def diagnose(
    model: Predictor,
    x: Array,
    y: NDArray[np.int64],
    domain: Domain,
    *,
    seed: int,
    units: Sequence[object] | None = None,
    suite: Suite | None = None,
) -> Diagnosis:
    """Tell whether gradients tell the truth about a model, and what its robust accuracy is.

    Args:
        model: as it is served.
        x: (n, ...) float inputs, NumPy or torch; torch is needed to look at gradients.
        y: (n,) labels as class indices.
        domain: what the attacker may change, within a finite radius.
        seed, units: as for `Attack.run`.
        suite: how much to spend; by default every attack once at full strength, or in expectation with fewer steps where
            answers are random, and again with `PATIENT` queries where neither gradients nor a twin lead.

    Raises:
        ConfigurationError: the radius is not finite and positive.
        Inconclusive: the model answered NaN, or got fewer than `FEWEST` samples right.
        InvalidData: shapes disagree, or inputs lie outside the domain.
    """
    began = time.process_time()
    if not 0 < domain.radius < math.inf:
        raise ConfigurationError("a diagnosis needs a finite radius above 0", hint="Declare domain.radius.")
    y = np.asarray(y, dtype=np.int64)
    if len(x) != len(y):
        raise InvalidData(f"{len(x)} inputs and {len(y)} labels")
    inside = np.asarray(domain.contains(x, x), dtype=bool)
    if not inside.all():
        raise InvalidData(f"{int((~inside).sum())} of {len(x)} inputs lie outside the declared domain")
    case = _Case(model, x, y, domain, seed, list(range(len(x)) if units is None else units))
    signals = [*answer_signals(case.model, x[case.right], domain, case.streams("answers"))]
    case.random = signals[0].fired
    more, claimed = case.gradients()
    signals += more
    found = case.attack(suite)
    signals += case.order(found)
    shares, adversarial, evaluations = case.judge(found)
    signals.append(case.drift())
    value = float(shares.mean())
    low, high = _interval(shares, evaluations)
    return Diagnosis(
        signals=tuple(signals),
        claimed=claimed,
        robust_accuracy=value,
        low=low,
        high=high,
        shares=shares,
        evaluations=evaluations,
        adversarial=adversarial,
        suite=found,
        notes=tuple(case.notes),
        seconds=time.process_time() - began,
    )


class _Case:
    """One model and its samples under diagnosis."""

    def __init__(self, model: Predictor, x: Array, y: NDArray[np.int64], domain: Domain, seed: int, names: list[object]) -> None:
        self.model, self.x, self.y, self.domain, self.seed, self.names = model, x, y, domain, seed, names
        self.random = False
        self.notes: list[str] = []
        self.before = Oracle(model, Access.LABELS, 0).judge(x)
        if model.access >= Access.GRADIENTS and hasattr(x, "detach"):
            self._try_gradients()
        self.right = np.flatnonzero(self.before == y)
        if len(self.right) < FEWEST:
            raise Inconclusive(f"the model gets {len(self.right)} of {len(y)} samples right; {FEWEST} are needed for a diagnosis")

    def _try_gradients(self) -> None:
        """One backward pass; a model that fails in it is one without gradients."""
        rows = self.x[:2]
        try:
            Oracle(self.model, Access.GRADIENTS, len(rows)).value_and_gradient(rows, lambda logits: logits[:, 0])
        except HoldfastError:
            raise
        except Exception as error:
            self.notes.append(f"the backward pass failed with {type(error).__name__}")
            self.model = _Scored(self.model)

    def streams(self, *labels: object) -> SampleStreams:
        """Random streams of the samples that the model gets right."""
        return SampleStreams(derive(self.seed, "diagnosis", *labels), [self.names[row] for row in self.right])

    def gradients(self) -> tuple[list[Signal], float]:
        """What gradients say, or that there are none, and what plain PGD reports."""
        x, y = self.x[self.right], self.y[self.right]
        if self.model.access < Access.GRADIENTS:
            self.notes.append(
                "the model gives no gradients; attacks by its answers, and by a twin where there is one, took their place"
            )
            return list(hidden_signals(self.model, x, self.domain, self.streams("hidden"))), float("nan")
        if not hasattr(self.x, "detach"):
            raise InvalidData("gradients are looked at in torch tensors", hint="Convert the inputs with torch.as_tensor.")
        found = list(gradient_signals(self.model, x, y, self.domain, self.streams("gradients"), random=self.random))
        ascents, standing = ascent_signals(self.model, x, y, self.domain)
        if not self.random:
            found += ascents
        return found, standing * len(self.right) / len(self.y)

    def attack(self, suite: Suite | None) -> Robustness:
        """The suite, in expectation where answers are random, and once more with more queries where nothing else leads."""
        if self.random:
            settled = _Settled(EOT(self.model, DRAWS), self.x, self.before)
            return self._run(suite or Suite(queries=200, steps=25), settled, np.arange(len(self.y)))
        everyone = np.arange(len(self.y))
        found = self._run(suite or Suite(), self.model, everyone)
        rows = np.flatnonzero(found.robust)
        if suite is not None or found.twin or self.model.access >= Access.GRADIENTS or not len(rows):
            return found
        return _merged(found, self._run(Suite(queries=PATIENT), self.model, rows), rows)

    def _run(self, suite: Suite, model: Predictor, rows: NDArray[np.int64]) -> Robustness:
        names = [self.names[row] for row in rows]
        return suite.run(model, self.x[rows], self.y[rows], self.domain, seed=self.seed, units=names)

    def order(self, found: Robustness) -> list[Signal]:
        """Whether gradients did worse than what sees less, and whether they find anything at all in the widest ball."""
        if self.model.access < Access.GRADIENTS:
            return []
        white = found.standing_after(("model",))
        gap = float(white.sum() - found.robust.sum()) / len(self.y)
        signals = [
            Signal(
                name="samples that fall to weaker access only",
                value=gap,
                bound=max(0.04, 2.5 / len(self.y)),
                mechanism="order inversion: an attack that sees less finds more",
            )
        ]
        if hasattr(self.x, "detach") and not self.random:
            signals.append(self._everywhere(np.flatnonzero(white)))
        return signals

    def _everywhere(self, standing: NDArray[np.int64]) -> Signal:
        """Gradients alone in a ball so wide that the model cannot be right everywhere in it."""
        held = 0
        if len(standing):
            wide = self.domain.within(self._wide())
            attack = APGD(steps=40, losses=("ce", "targeted"), targets=4)
            names = [self.names[row] for row in standing]
            try:
                outcome = attack.run(self.model, self.x[standing], self.y[standing], wide, seed=self.seed, units=names)
                held = int((outcome.correct & ~outcome.success).sum())
            except HoldfastError as error:
                self.notes.append(f"Auto-PGD in the widest ball: {error.what}")
        return Signal(
            name="samples that gradients cannot move however far they may go",
            value=held / len(self.y),
            bound=0.2,
            mechanism="gradients that end nowhere, however large the radius",
        )

    def _wide(self) -> float:
        drawn = self.domain.within(math.inf).sample(
            self.x, SampleStreams(0, self.names).uniform(np.arange(len(self.y)), tuple(self.x.shape[1:]))
        )
        return float(np.median(self.domain.distance(self.x, drawn)))

    def judge(self, found: Robustness) -> tuple[NDArray[np.float64], Array, int]:
        """(n,) the share of right answers to each final sample, the final samples, and the evaluations of each."""
        if not self.random:
            again = Oracle(self.model, Access.LABELS, 0).judge(found.adversarial)
            return (again == self.y).astype(float), found.adversarial, 1
        candidates = [copied(self.x), found.adversarial]
        for through in self._in_expectation():
            candidates.append(self._pressed(through, found.adversarial))
        shares = np.stack([self._share(candidate, SELECTION) for candidate in candidates])
        worst = shares.argmin(axis=0)
        final = copied(self.x)
        for index, candidate in enumerate(candidates):
            rows = np.flatnonzero(worst == index)
            final[rows] = as_like(final, candidate[rows])
        return self._share(final, EVALUATIONS), final, EVALUATIONS

    def _in_expectation(self) -> list[Predictor]:
        """The doors through which expected gradients can be had."""
        if not hasattr(self.x, "detach"):
            return []
        doors: list[Predictor] = [self.model] if self.model.access >= Access.GRADIENTS else []
        classes = int(max(self.y.max(), self.before.max())) + 1
        twin: StraightThrough | None = straight_through(self.model, self.x, len(getattr(self.model, "classes", range(classes))))
        return doors + ([twin] if twin is not None else [])

    def _pressed(self, through: Predictor, start: Array) -> Array:
        """Ascent of the expected margin that does not stop when most answers are wrong."""
        import torch

        mean = EOT(through, DRAWS)
        oracle = Oracle(mean, Access.GRADIENTS, len(self.y))
        labels = torch.as_tensor(self.y, device=self.x.device)
        now = start.clone()
        for turn in range(PRESSING):
            _, slope = oracle.value_and_gradient(
                now, lambda logits: margin(logits.log_softmax(dim=1), labels, labels).clamp_max(10.0)
            )
            slope = slope.nan_to_num(0.0, 0.0, 0.0)
            length = slope.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, *[1] * (now.ndim - 1))
            direction = slope.sign() if self.domain.norm == "linf" else slope / length
            size = 0.5 * self.domain.radius * (1 - turn / PRESSING)
            now = self.domain.project(self.x, now + size * direction)
        return now

    def _share(self, rows: Array, evaluations: int) -> NDArray[np.float64]:
        oracle = Oracle(self.model, Access.LABELS, 0)
        return np.asarray(np.mean([oracle.judge(rows) == self.y for _ in range(evaluations)], axis=0))

    def drift(self) -> Signal:
        """Whether the unattacked samples are answered as before."""
        after = Oracle(self.model, Access.LABELS, 0).judge(self.x)
        changed = 0.0 if self.random else float((after != self.before).mean())
        return Signal(name="answers that changed meanwhile", value=changed, bound=0.02, mechanism="answers change over time")


class _Scored:
    """A model whose gradients do not work, as one that has none."""

    def __init__(self, model: Predictor) -> None:
        self._model, self.access = model, Access.SCORES
        for name in ("classes", "module"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def labels(self, x: Any) -> NDArray[np.int64]:
        return self._model.labels(x)

    def scores(self, x: Any) -> Array:
        return self._model.scores(x)

    def value_and_gradient(self, x: Any, loss: Any) -> tuple[Array, Array]:
        return self._model.value_and_gradient(x, loss)


class _Settled:
    """A model with random answers whose word on the unattacked samples stands, so that an attack has somewhere to begin."""

    def __init__(self, model: EOT, x: Array, labels: NDArray[np.int64]) -> None:
        self._model, self.price = model, model.price
        self._known = {_key(row): int(label) for row, label in zip(x, labels, strict=True)}
        inner: Any = model._model
        if hasattr(inner, "classes"):
            self.classes = inner.classes
        if hasattr(inner, "module"):
            self.module = inner.module

    @property
    def access(self) -> Access:
        return self._model.access

    def labels(self, x: Any) -> NDArray[np.int64]:
        answer = self._model.labels(x)
        return np.array([self._known.get(_key(row), label) for row, label in zip(x, answer, strict=True)], dtype=np.int64)

    def scores(self, x: Any) -> Array:
        return self._model.scores(x)

    def value_and_gradient(self, x: Any, loss: Any) -> tuple[Array, Array]:
        return self._model.value_and_gradient(x, loss)


def _key(row: Any) -> bytes:
    return bytes(np.ascontiguousarray(row.detach().cpu().numpy() if hasattr(row, "detach") else row).tobytes())


def _merged(first: Robustness, more: Robustness, rows: NDArray[np.int64]) -> Robustness:
    """What a second run on some rows adds to a first on all."""
    won = np.flatnonzero(more.success)
    success, distance, by = first.success.copy(), first.distance.copy(), first.by.copy()
    adversarial = copied(first.adversarial)
    success[rows[won]] = True
    distance[rows[won]] = more.distance[won]
    by[rows[won]] = more.by[won] + len(first.stages)
    adversarial[rows[won]] = more.adversarial[won]
    stages = first.stages + more.stages
    return replace(first, success=success, distance=distance, by=by, adversarial=adversarial, stages=stages)


def _interval(shares: NDArray[np.float64], evaluations: int) -> tuple[float, float]:
    """Wilson's where each sample is right or wrong, else the t interval of the mean share, which holds both kinds of chance."""
    if evaluations == 1:
        return wilson(int(shares.sum()), len(shares))
    half = float(stats.t.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / math.sqrt(len(shares)))
    low, high = wilson(float(shares.sum()), len(shares))
    return max(0.0, min(float(shares.mean()) - half, low)), min(1.0, max(float(shares.mean()) + half, high))
