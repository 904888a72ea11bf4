"""The robustness suite: one call, nothing to tune, the worst that any of its attacks finds for each sample.

1. Price the model: CPU seconds of a forward and of a backward row.
2. Attack in stages, those that break most for their price first: Auto-PGD by cross-entropy, then towards each of the next
   classes, then the same through a straight-through twin, then by scores, then by labels. Only samples that still stand go on.
3. With a budget of seconds, give each stage its share of what is left, in fewer steps or queries where that is little, and
   begin again with other random numbers and twice the queries while time is left.

What counts is each sample's worst case. Robust accuracy is over all samples, those that the model gets wrong included.

Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
section 5, for the sequential ensemble and the worst case; the twin and the label-only stage are ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.square import Square
from holdfast.attacks.evasion.straight_through import straight_through
from holdfast.core.arrays import Array, as_like, as_numpy, copied
from holdfast.core.domain import Ball, Domain
from holdfast.core.errors import ConfigurationError, HoldfastError, InvalidData
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.progress import Progress, Silent
from holdfast.core.seeds import SampleStreams, derive
from holdfast.core.statistics import wilson

Door = Literal["model", "twin", "scores", "labels"]
OVERHEAD = 1.5
"""CPU seconds of an attack over those of its bare model calls, at most, for planning."""
FEWEST = 8
"""A stage that could take fewer steps or queries than this is left out."""
NEAR = 0.1
"""Share of the label-only queries that go to random inputs within the radius."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack of the suite.

    Attributes:
        name: for people.
        door: what it goes through: the model's own gradients, those of its twin, its scores or its labels.
        attack: at full strength.
        forward, backward: rows for one sample, at most.
    """

    name: str
    door: Door
    attack: Attack
    forward: int
    backward: int


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What one stage did.

    Attributes:
        stage: which.
        attacked, broken: samples.
        rows: answered for it.
        seconds: CPU seconds it took.
        skipped: why it did not run or did not finish; empty when it did.
    """

    stage: Stage
    attacked: int
    broken: int
    rows: int = 0
    seconds: float = 0.0
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """What the suite found for n samples.

    Attributes:
        correct, success: (n,) handled correctly, and broken within the domain.
        adversarial: (n, ...) verified examples; the original where there is none.
        distance: (n,) of each, NaN where there is none.
        by: (n,) index into `stages` of the one that broke it, -1 where none did.
        stages: in the order in which they ran.
        twin: whether the model's operations could be recorded.
    """

    correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    adversarial: Array
    distance: NDArray[np.float64]
    by: NDArray[np.int64]
    stages: tuple[StageResult, ...]
    twin: bool

    @property
    def robust(self) -> NDArray[np.bool_]:
        """(n,) handled correctly and not broken."""
        return np.asarray(self.correct & ~self.success)

    @property
    def robust_accuracy(self) -> float:
        """The share of all samples that are."""
        return float(self.robust.mean()) if len(self.robust) else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the robust accuracy."""
        return wilson(int(self.robust.sum()), len(self.robust))

    def standing_after(self, doors: tuple[Door, ...]) -> NDArray[np.bool_]:
        """(n,) what would count as robust, had only the stages through these doors run."""
        counted = np.array([result.stage.door in doors for result in self.stages] + [False], dtype=bool)
        return np.asarray(self.correct & ~counted[self.by])


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Robust accuracy by radius, and two tests that it must pass whatever the model.

    Attributes:
        radii, robust, low, high: (k,) ascending; shares with Wilson's 95 % interval.
        clean_at_zero: nothing is broken at radius 0.
        falls_to_zero: nothing stands at the radius that reaches every valid input.
    """

    radii: tuple[float, ...]
    robust: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    clean_at_zero: bool
    falls_to_zero: bool

    @property
    def sound(self) -> bool:
        """Whether both tests passed; if not, the attacks or the model's answers are broken."""
        return self.clean_at_zero and self.falls_to_zero


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The ensemble. Its fields limit what it costs; there is nothing to tune.

    Attributes:
        seconds: CPU seconds for one run; None to run every stage once at full strength.
        queries: for the stages by scores and by labels, for each sample in the first round.
        steps: of Auto-PGD for each loss and target.
        starts, start_labels: rows that the attacker owns with their labels, for the last stage; the attacked ones by default.
    """

    seconds: float | None = None
    queries: int = 1000
    steps: int = 100
    starts: Any = field(default=None, repr=False, compare=False)
    start_labels: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.queries < 1 or self.steps < 1 or not (self.seconds is None or self.seconds > 0):
            raise ConfigurationError("the suite needs at least one query and step, and a positive number of seconds")

    def stages(self, access: Access, classes: int, domain: Domain, twin: bool) -> tuple[Stage, ...]:
        """What a round tries on a model of this access, in order."""
        targets = max(1, min(9, classes - 1))
        candidates = classes
        found = []
        finite = math.isfinite(domain.radius)
        for door, gives in (("model", access >= Access.GRADIENTS), ("twin", twin)):
            if not (gives and finite):
                continue
            through: Door = "model" if door == "model" else "twin"
            of = "" if through == "model" else ", straight-through"
            entropy = APGD(steps=self.steps, losses=("ce",))
            towards = APGD(steps=self.steps, losses=("targeted",), targets=targets)
            many = targets * self.steps + candidates
            found.append(
                Stage(name=f"Auto-PGD, cross-entropy{of}", door=through, attack=entropy, forward=self.steps, backward=self.steps)
            )
            found.append(Stage(name=f"Auto-PGD, targeted{of}", door=through, attack=towards, forward=many, backward=many))
        if access >= Access.SCORES and finite:
            square = Square(queries=self.queries)
            found.append(Stage(name="Square", door="scores", attack=square, forward=self.queries, backward=0))
        walk = HopSkipJump(queries=self.queries, near=NEAR if finite else 0.0)
        found.append(Stage(name="HopSkipJump", door="labels", attack=walk, forward=self.queries, backward=0))
        return tuple(found)

    def run(
        self,
        model: Predictor,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        *,
        seed: int,
        units: Sequence[object] | None = None,
        decode: Callable[[Array], Any] | None = None,
        progress: Progress | None = None,
    ) -> Robustness:
        """Attack.

        Args:
            model, x, y, domain, seed, units, decode: as for `Attack.run`; with `decode`, attacks by gradients are left out.
            progress: told after each stage.

        Raises:
            InvalidData, InvalidModel: as for `Attack.run`.
            Inconclusive: the model answered NaN. A model whose answers change stops the stage that noticed, which says so.
        """
        y = np.asarray(y, dtype=np.int64)
        names = list(range(len(x)) if units is None else units)
        if not len(x):
            raise InvalidData("the suite needs at least one sample")
        started = time.process_time()
        state = _State(self, model, x, y, domain, names, decode)
        turn = 0
        while True:
            state.round(seed, turn, started, progress or Silent())
            turn += 1
            if (
                self.seconds is None
                or not state.open.any()
                or time.process_time() - started > 0.8 * self.seconds
                or state.starved
            ):
                return state.result()

    def curve(
        self,
        model: Predictor,
        x: Array,
        y: NDArray[np.int64],
        domain: Ball,
        radii: Sequence[float],
        *,
        seed: int,
        units: Sequence[object] | None = None,
    ) -> Curve:
        """Robust accuracy at 0, at each radius and at the one that reaches every valid input.

        What falls at one radius counts as fallen at all larger ones. With a budget, each radius gets it.

        Raises:
            ConfigurationError: the box is not finite, or a radius is negative.
            InvalidData, InvalidModel, Inconclusive: as for `run`.
        """
        widest = _widest(x, domain)
        if not math.isfinite(widest) or min(radii, default=0.0) < 0:
            raise ConfigurationError(
                "a curve needs a finite box and radii of at least 0", hint="Declare domain.low and domain.high."
            )
        y = np.asarray(y, dtype=np.int64)
        names = list(range(len(x)) if units is None else units)
        tested = sorted({0.0, *(float(radius) for radius in radii if radius < widest), widest})
        clean = Oracle(model, Access.LABELS, 0).judge(x) == y
        standing, shares = clean.copy(), []
        for turn, radius in enumerate(tested):
            rows = np.flatnonzero(standing)
            if len(rows):
                inside = domain.within(radius)
                found = self.run(
                    model, x[rows], y[rows], inside, seed=derive(seed, "radius", turn), units=[names[i] for i in rows]
                )
                standing[rows[found.success]] = False
            shares.append(int(standing.sum()))
        ends = [wilson(count, len(y)) for count in shares]
        return Curve(
            radii=tuple(tested),
            robust=tuple(count / len(y) for count in shares),
            low=tuple(low for low, _ in ends),
            high=tuple(high for _, high in ends),
            clean_at_zero=shares[0] == int(clean.sum()),
            falls_to_zero=shares[-1] == 0,
        )


class _State:
    """A run in progress."""

    def __init__(
        self,
        suite: Suite,
        model: Predictor,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        names: list[object],
        decode: Callable[[Array], Any] | None,
    ) -> None:
        self.suite, self.model, self.x, self.y, self.domain, self.names, self.decode = suite, model, x, y, domain, names, decode
        judged = Oracle(model, Access.LABELS, len(x), decode=decode).judge(x)
        self.labels = judged
        self.correct = judged == y
        self.success = np.zeros(len(x), dtype=bool)
        self.adversarial, self.distance = copied(x), np.full(len(x), np.nan)
        self.by = np.full(len(x), -1, dtype=np.int64)
        self.done: list[StageResult] = []
        self.starved = False
        self.tensor = _as_tensor(x) if decode is None else None
        self.classes = self._classes()
        self.twin = None
        if self.tensor is not None and math.isfinite(domain.radius):
            self.twin = straight_through(model, _varied(self.tensor, domain), self.classes)
        self.price = self._price()

    @property
    def open(self) -> NDArray[np.bool_]:
        return np.asarray(self.correct & ~self.success)

    def round(self, seed: int, turn: int, started: float, progress: Progress) -> None:
        """Every stage once; in later rounds with twice the queries of the one before."""
        access = self.model.access if self.tensor is not None else min(self.model.access, Access.SCORES)
        stages = self.suite.stages(access, self.classes, self.domain, self.twin is not None)
        self.starved = True
        for index, stage in enumerate(stages):
            rows = np.flatnonzero(self.open)
            progress.advance("stages", index, len(stages))
            if not len(rows):
                self.done.append(StageResult(stage=stage, attacked=0, broken=0, skipped="nothing stands"))
                continue
            scale = 2.0**turn
            if self.suite.seconds is not None:
                left = self.suite.seconds - (time.process_time() - started)
                needed = OVERHEAD * len(rows) * (stage.forward * self.price[0] + stage.backward * self.price[1])
                scale = min(scale, max(left, 0.0) / (len(stages) - index) / max(needed, 1e-9))
            fitted = _fitted(stage.attack, scale, turn)
            if fitted is None:
                self.done.append(StageResult(stage=stage, attacked=len(rows), broken=0, skipped="no time was left"))
                continue
            self.starved = False
            self._attack(stage, fitted, rows, derive(seed, "suite", stage.name, turn))
        progress.advance("stages", len(stages), len(stages))

    def _attack(self, stage: Stage, attack: Attack, rows: NDArray[np.int64], seed: int) -> None:
        began = time.process_time()
        through: Predictor = self.twin if stage.door == "twin" and self.twin is not None else self.model
        inputs = self.tensor if stage.door in ("model", "twin") and self.tensor is not None else self.x
        if isinstance(attack, HopSkipJump):
            attack = self._with_starts(attack)
        try:
            outcome = attack.run(
                through,
                inputs[rows],
                self.y[rows],
                self.domain,
                seed=seed,
                units=[self.names[row] for row in rows],
                budget=attack.queries if isinstance(attack, (Square, HopSkipJump)) else None,
                decode=self.decode,
            )
        except HoldfastError as error:
            self.done.append(
                StageResult(stage=stage, attacked=len(rows), broken=0, seconds=time.process_time() - began, skipped=error.what)
            )
            return
        won = rows[outcome.success]
        self.success[won] = True
        self.by[won] = len(self.done)
        self.distance[won] = outcome.distance[outcome.success]
        self.adversarial[won] = as_like(self.x, outcome.adversarial[np.flatnonzero(outcome.success)])
        seconds = time.process_time() - began
        self.done.append(
            StageResult(stage=stage, attacked=len(rows), broken=len(won), rows=outcome.cost.forward, seconds=seconds)
        )

    def result(self) -> Robustness:
        return Robustness(
            correct=self.correct,
            success=self.success,
            adversarial=self.adversarial,
            distance=self.distance,
            by=self.by,
            stages=tuple(self.done),
            twin=self.twin is not None,
        )

    def _with_starts(self, attack: HopSkipJump) -> HopSkipJump:
        given = self.suite.starts is not None
        return HopSkipJump(
            queries=attack.queries,
            near=attack.near,
            starts=self.suite.starts if given else self.x,
            start_labels=self.suite.start_labels if given else self.labels,
        )

    def _classes(self) -> int:
        names = getattr(self.model, "classes", None)
        if names is not None:
            return len(names)
        if self.model.access >= Access.SCORES:
            return int(as_numpy(self.model.scores(self.decode(self.x[:1]) if self.decode else self.x[:1])).shape[1])
        return int(max(self.y.max(), self.labels.max())) + 1

    def _price(self) -> tuple[float, float]:
        """CPU seconds of a forward row and of a backward row, on a batch of the attacked samples."""
        rows = self.x[: min(len(self.x), 256)]
        asked = self.decode(rows) if self.decode else rows
        self.model.labels(asked)
        began = time.process_time()
        self.model.labels(asked)
        forward = (time.process_time() - began) / len(rows)
        return forward, 2 * forward


def _fitted(attack: Attack, scale: float, turn: int) -> Attack | None:
    """The attack at that share of its strength, or None where nothing sensible is left; gradients gain by new starts alone."""
    if isinstance(attack, APGD):
        steps = int(attack.steps * min(scale, 1.0))
        return None if steps < FEWEST else APGD(steps=steps, losses=attack.losses, targets=attack.targets)
    if isinstance(attack, (Square, HopSkipJump)):
        queries = int(attack.queries * scale)
        if queries < FEWEST:
            return None
        return Square(queries=queries) if isinstance(attack, Square) else HopSkipJump(queries=queries, near=attack.near)
    return attack if scale >= 1 or turn == 0 else None


def _as_tensor(x: Array) -> Any:
    """x for attacks by gradients; None where torch is not installed."""
    if hasattr(x, "detach"):
        return x
    try:
        import torch
    except ImportError:
        return None
    return torch.from_numpy(np.ascontiguousarray(x))


def _varied(x: Any, domain: Domain) -> Any:
    """The samples, and as many random ones of the domain around them."""
    import torch

    streams = SampleStreams(0, range(len(x)))
    return torch.cat([x, domain.sample(x, streams.uniform(np.arange(len(x)), tuple(x.shape[1:])))])


def _widest(x: Array, domain: Ball) -> float:
    """The radius at which the ball holds the whole box, whatever the sample."""
    features = math.prod(x.shape[1:])
    sides = np.broadcast_to(as_numpy(domain.high) - as_numpy(domain.low), tuple(x.shape[1:]))
    return {
        "linf": float(sides.max()),
        "l2": float(np.sqrt((sides**2).sum())),
        "l1": float(sides.sum()),
        "l0": float(features),
    }[domain.norm]
