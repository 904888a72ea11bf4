"""Auto-PGD: evasion by gradients, without a step size to tune.

1. Start at a random point of the domain.
2. Step up the loss with momentum, and project.
3. At checkpoints, halve a sample's step size and return to its best point if its loss stopped rising.
4. Run for each loss, restart and target; a sample is done as soon as it is misclassified.

Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", algorithm 1 and section 3; equations 6 and 7 for the losses. Those need three and four classes; with fewer,
the margin of the logits takes their place, which does not saturate either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.encoded import EncodedDomain
from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError, InvalidData, MissingExtra
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

Index = NDArray[np.int64]
MOMENTUM = 0.75
RISING = 0.75
"""Share of the steps since the last checkpoint that must have raised the loss; rho in the paper."""


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Projected gradient ascent with momentum and step sizes of its own for each sample.

    Steps use the sign of the gradient under linf, else its direction. Takes torch tensors. In a table's domain it moves over
    the real numbers, and asks about the valid row next to each point.

    Attributes:
        steps: gradient steps for each loss and restart.
        losses: of `ce`, cross-entropy, `dlr`, the difference of logits ratio, and `targeted`, the same towards one class.
        restarts: random starts for each loss and target.
        targets: classes that `targeted` tries, those with the largest logits first.
    """

    steps: int = 100
    losses: tuple[Literal["ce", "dlr", "targeted"], ...] = ("ce", "targeted")
    restarts: int = 1
    targets: int = 4
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.targets) < 1 or not self.losses or not set(self.losses) <= set(LOSSES):
            raise ConfigurationError(f"APGD needs at least one step, restart and target, and losses of {', '.join(LOSSES)}")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """A misclassified input for each sample that has one, else the one with the largest loss of the last run."""
        _need_torch(x)
        if not math.isfinite(domain.radius):
            raise ConfigurationError("APGD searches within a radius", hint="Declare domain.radius.")
        result = x.clone()
        open_ = np.arange(len(x))
        for loss in self.losses:
            open_ = open_[oracle.remaining()[open_] > 0]
            if not len(open_):
                break
            others = self._targets(oracle, x, y, open_) if loss == "targeted" else np.zeros((len(x), 1), dtype=np.int64)
            for target in np.repeat(others.T, self.restarts, axis=0):
                open_ = open_[oracle.remaining()[open_] > 0]
                if not len(open_):
                    break
                ascent = _Ascent(self, oracle, x, y, domain, streams, open_, loss, target)
                ascent.run()
                result[open_] = ascent.best
                open_ = open_[~ascent.won]
        return result

    def _targets(self, oracle: Oracle, x: Array, y: NDArray[np.int64], samples: Index) -> Index:
        """(len(x), targets) the classes that come next after the true one; asks one query for each of the samples."""
        scores = oracle.scores(x[samples], samples).detach().cpu().numpy().copy()
        scores[np.arange(len(samples)), y[samples]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, : min(self.targets, scores.shape[1] - 1)]
        others = np.zeros((len(x), order.shape[1]), dtype=np.int64)
        others[samples] = order
        return others


class _Ascent:
    """One run of Auto-PGD on the samples that are still open."""

    def __init__(
        self,
        attack: APGD,
        oracle: Oracle,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        streams: SampleStreams,
        samples: Index,
        loss: str,
        target: Index,
    ) -> None:
        import torch

        self.steps, self.oracle, self.samples, self.loss = attack.steps, oracle, samples, loss
        self.valid, self.domain = domain, domain.relaxed if isinstance(domain, EncodedDomain) else domain
        self.x, self.y = x[samples], torch.as_tensor(y[samples], device=x.device)
        self.target = torch.as_tensor(target[samples], device=x.device)
        self.signed = domain.norm == "linf"
        self.now = self.domain.sample(self.x, streams.uniform(samples, tuple(x.shape[1:])))
        self.before = self.now.clone()
        self.best = self.now.clone()
        self.best_value = torch.full((len(samples),), -math.inf, dtype=x.dtype, device=x.device)
        self.best_gradient = torch.zeros_like(self.now)
        self.value, self.gradient = self.best_value.clone(), torch.zeros_like(self.now)
        self.size = torch.full((len(samples),), 2 * domain.radius, dtype=x.dtype, device=x.device)
        self.won = np.zeros(len(samples), dtype=bool)

    def run(self) -> None:
        """All steps; each asks only about samples that are neither won nor out of queries."""
        rises = np.zeros(len(self.samples))
        checked_value, checked_size = self.best_value.clone(), np.zeros(len(self.samples), dtype=bool)
        checkpoints = set(_checkpoints(self.steps))
        last = 0
        self.look(np.arange(len(self.samples)))
        for step in range(1, self.steps + 1):
            active = np.flatnonzero(~self.won & (self.oracle.remaining()[self.samples] > 0))
            if not len(active):
                return
            earlier = self.value[active].clone()
            self.move(active, 1.0 if step == 1 else MOMENTUM)
            self.look(active)
            rises[active] += (self.value[active] > earlier).cpu().numpy()
            if step in checkpoints:
                stalled = (self.best_value <= checked_value).cpu().numpy() & ~checked_size
                halved = (rises < RISING * (step - last)) | stalled
                self.size[halved] /= 2
                self.now[halved] = self.best[halved]
                self.before[halved] = self.best[halved]
                self.value[halved], self.gradient[halved] = self.best_value[halved], self.best_gradient[halved]
                checked_value, checked_size = self.best_value.clone(), halved
                rises[:], last = 0, step

    def look(self, active: Index) -> None:
        """The loss and gradient of each active sample's point; what is misclassified inside the domain is won."""
        wrong: list[NDArray[np.bool_]] = []
        y, target = self.y[active], self.target[active]

        def loss(logits: Array) -> Array:
            wrong.append((logits.detach().argmax(dim=1) != y).cpu().numpy())
            return LOSSES[self.loss](logits, y, target)

        point = self.now[active]
        if self.valid is not self.domain:
            point = self.valid.project(self.x[active], point)
        value, gradient = self.oracle.value_and_gradient(point, loss, self.samples[active])
        self.value[active], self.gradient[active] = value.nan_to_num(-math.inf), gradient.nan_to_num(0.0, 0.0, 0.0)
        won = active[wrong[-1]]
        self.won[won] = True
        better = active[(self.value[active] > self.best_value[active]).cpu().numpy() | wrong[-1]]
        self.best[better], self.best_value[better] = self.now[better], self.value[better]
        self.best_gradient[better] = self.gradient[better]

    def move(self, active: Index, momentum: float) -> None:
        """A projected step, mixed with the one before."""
        x, now, gradient = self.x[active], self.now[active], self.gradient[active]
        size = self.size[active].reshape(-1, *[1] * (x.ndim - 1))
        direction = gradient.sign() if self.signed else gradient / _norms(gradient).clamp_min(1e-30)
        ahead = self.domain.project(x, now + size * direction)
        moved = self.domain.project(x, now + momentum * (ahead - now) + (1 - momentum) * (now - self.before[active]))
        self.before[active], self.now[active] = now, moved


def _checkpoints(steps: int) -> list[int]:
    """The steps at which step sizes are reconsidered; equation 4 of the paper."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(share * steps - 1e-9) for share in shares[1:] if share <= 1]


def _cross_entropy(logits: Array, y: Array, _: Array) -> Array:
    import torch

    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


def _difference_of_logits_ratio(logits: Array, y: Array, _: Array) -> Array:
    ordered, place = logits.sort(dim=1, descending=True)
    other = ordered[:, 1].where(place[:, 0] == y, ordered[:, 0])
    margin = other - logits.gather(1, y[:, None])[:, 0]
    return margin if logits.shape[1] < 3 else margin / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def _targeted_ratio(logits: Array, y: Array, target: Array) -> Array:
    ordered = logits.sort(dim=1, descending=True).values
    margin = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
    return margin if logits.shape[1] < 4 else margin / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "ce": _cross_entropy,
    "dlr": _difference_of_logits_ratio,
    "targeted": _targeted_ratio,
}


def _norms(x: Array) -> Array:
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def _need_torch(x: Array) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "torch", "evasion by gradients") from error
    if not isinstance(x, torch.Tensor):
        raise InvalidData("evasion by gradients works on torch tensors", hint="Convert the inputs with torch.as_tensor.")
