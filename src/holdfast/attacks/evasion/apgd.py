"""Auto-PGD: evasion by gradients, without a step size to tune.

1. Start at a random point of the domain.
2. Step up the loss with momentum, and project.
3. At checkpoints, shorten a sample's steps and return to its best point if its loss stopped rising.
4. Run for each loss, restart and target; a sample is done as soon as it is misclassified.

Targets come in the order of how far their decision boundary lies by a linear estimate: the difference of the logits over the
size of its gradient. The point after the last step of the last run is judged by whoever runs the attack, so that n steps of one
loss cost n queries; those of each earlier run cost one more, and the order of the targets costs one for each candidate.

Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", algorithm 1 and section 3; Croce and Hein (2021), "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", algorithm 2, for l1, without its larger radii; Melamed, Yehudai and Vardi (2024), "MALT powers up adversarial
attacks", algorithm 1, for the order, with the dual of the domain's norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ascent import Ascent, Index, random_start
from holdfast.attacks.evasion.directions import column, dual, require_radius, require_torch, sizes, step
from holdfast.attacks.evasion.losses import LOSSES, Loss
from holdfast.core.arrays import Array, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

MOMENTUM = 0.75
RISING = 0.75
"""Share of the steps since the last checkpoint that must have raised the loss; rho in the paper."""
CANDIDATES = 20
"""Most classes among which targets are chosen, those with the largest logits."""
SPARSE = 0.2
"""Share of the features that the first steps under l1 move."""


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Projected gradient ascent with step sizes of its own for each sample, under linf, l2, l1 or l0. Takes torch tensors.

    In a table's domain it moves over the real numbers, and asks about the valid row next to each point.

    Attributes:
        steps: gradient steps for each loss and restart.
        losses: of `ce`, cross-entropy, `dlr`, the difference of logits ratio, `targeted`, the same towards one class, and
            `margin`, the difference itself.
        restarts: random starts for each loss and target.
        targets: classes that `targeted` tries, those whose boundary seems nearest first.
    """

    steps: int = 100
    losses: tuple[Loss, ...] = ("ce", "targeted")
    restarts: int = 1
    targets: int = 4
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.targets) < 1 or not self.losses or not set(self.losses) <= set(LOSSES):
            raise ConfigurationError(f"APGD needs at least one step, restart and target, and losses of {', '.join(LOSSES)}")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """A misclassified input for each sample for which one was seen, else where its last run ended."""
        require_torch(x)
        require_radius(domain, "APGD")
        import torch

        result = x.clone()
        open_ = np.arange(len(x))
        for loss in self.losses:
            open_ = open_[oracle.remaining(open_) > 0]
            if not len(open_):
                break
            targets = self._targets(oracle, x, y, domain, open_) if loss == "targeted" else np.zeros((len(x), 1), dtype=np.int64)
            runs = np.repeat(targets.T, self.restarts, axis=0)
            for index, target in enumerate(runs):
                open_ = open_[oracle.remaining(open_) > 0]
                if not len(open_):
                    break
                start = random_start(domain, x[open_], streams.uniform(open_, tuple(x.shape[1:])))
                towards = torch.as_tensor(target[open_], device=x.device)
                run = Ascent(oracle, x, y, domain, open_, start, loss, towards)
                self._climb(run, result, last=loss == self.losses[-1] and index == len(runs) - 1)
                open_ = run.samples
        return result

    def _climb(self, run: Ascent, result: Array, last: bool) -> None:
        """All steps; what is still in the run afterwards is not broken."""
        pace = (_Sparser if run.domain.norm == "l1" else _Halver)(run, self.steps)
        for count in range(self.steps):
            run.settle(run.unaffordable(), result)
            if not len(run.samples):
                return
            run.settle(run.look(), result)
            if not len(run.samples):
                return
            pace.consider(count)
            _move(run, pace.momentum if count else 1.0)
        result[run.samples] = run.now
        if not last:
            run.drop(run.unaffordable())
            run.drop(run.errs())

    def _targets(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, samples: Index) -> Index:
        """(len(x), targets) the classes whose boundary seems nearest; asks one query for each sample and candidate."""
        import torch

        inputs, true = x[samples], torch.as_tensor(y[samples], device=x.device)
        logits: list[Array] = []

        def margin(scores: Array, target: Array) -> Array:
            return scores.gather(1, target[:, None])[:, 0] - scores.gather(1, true[:, None])[:, 0]

        def nearest(scores: Array) -> Array:
            logits.append(scores.detach())
            return margin(scores, _others(scores.detach(), true)[:, 0])

        _, gradient = oracle.value_and_gradient(inputs, nearest, samples)
        others = _others(logits[-1], true)
        if others.shape[1] == 1:
            return _spread(as_numpy(others).astype(np.int64), samples, len(x))
        norm = dual(domain.norm)
        far = [_distance(margin(logits[-1], others[:, 0]), sizes(gradient, norm))]
        far += [torch.full_like(far[0], math.inf) for _ in range(others.shape[1] - 1)]
        for rank in range(1, others.shape[1]):
            rows = np.flatnonzero(oracle.remaining(samples) > 0)
            if not len(rows):
                break
            target, own = others[rows, rank], true[rows]

            def towards(scores: Array, target: Array = target, own: Array = own) -> Array:
                return scores.gather(1, target[:, None])[:, 0] - scores.gather(1, own[:, None])[:, 0]

            value, gradient = oracle.value_and_gradient(inputs[rows], towards, samples[rows])
            far[rank][rows] = _distance(value, sizes(gradient, norm)).to(far[rank].dtype)
        order = torch.stack(far, dim=1).argsort(dim=1, stable=True)[:, : self.targets]
        return _spread(as_numpy(others.gather(1, order)).astype(np.int64), samples, len(x))


class _Halver:
    """Checkpoints of Auto-PGD: steps halve where too few of them raised the loss, or where the best value stands still."""

    momentum = MOMENTUM

    def __init__(self, run: Ascent, steps: int) -> None:
        self.run, self.checkpoints, self.last = run, set(_checkpoints(steps)), 0
        state, now = run.state, run.now
        lowest = now.new_full((len(now),), -math.inf)
        state |= {"best": now.clone(), "best_value": lowest, "best_gradient": now, "earlier": lowest, "checked": lowest}
        state |= {"before": now, "size": now.new_full((len(now),), 2 * run.domain.radius), "rises": now.new_zeros(len(now))}
        state["shortened"] = state["rises"].bool()
        if run.domain.norm == "l0":
            self.momentum = 1.0
            state["size"] /= 2

    def consider(self, count: int) -> None:
        """Keep the best points; at a checkpoint, shorten steps and return to them."""
        state = self.run.state
        if count:
            state["rises"] = state["rises"] + (state["value"] > state["earlier"])
        _keep_best(state, first=not count)
        if count in self.checkpoints:
            few = state["rises"] < RISING * (count - self.last)
            still = (state["best_value"] <= state["checked"]) & ~state["shortened"]
            state["shortened"] = few | still
            state["size"] = state["size"] / (1 + state["shortened"].to(state["size"].dtype))
            _return(state, state["shortened"])
            state["before"] = _where(state["shortened"], state["best"], state["before"])
            state["checked"], state["rises"], self.last = state["best_value"], state["rises"].new_zeros(len(few)), count
        state["earlier"] = state["value"]


class _Sparser:
    """Checkpoints under l1: steps move fewer features as the best point's change grows sparser."""

    momentum = 1.0

    def __init__(self, run: Ascent, steps: int) -> None:
        self.run, self.every, self.features = run, max(1, int(0.04 * steps)), run.now[0].numel()
        state, now = run.state, run.now
        self.longest = run.domain.radius
        lowest = now.new_full((len(now),), -math.inf)
        state |= {"best": now.clone(), "best_value": lowest, "best_gradient": now, "before": now}
        state |= {"size": now.new_full((len(now),), self.longest), "share": now.new_full((len(now),), SPARSE)}
        state["changed"] = now.new_full((len(now),), self.features)

    def consider(self, count: int) -> None:
        """Keep the best points; every few steps, set length and sparsity of the next ones."""
        state = self.run.state
        _keep_best(state, first=not count)
        if count and count % self.every == 0:
            changed = sizes(state["best"] - state["x"], "l0")
            sparser = changed / state["changed"].clamp_min(1) < 0.95
            state["share"] = changed / self.features / 1.5
            size = state["size"].new_full((len(changed),), self.longest).where(sparser, state["size"] / 1.5)
            state["size"] = size.clamp(self.longest / 10, self.longest)
            state["changed"] = changed
            _return(state, sparser)


def _move(run: Ascent, momentum: float) -> None:
    """A projected step, mixed with the one before."""
    state, x, now = run.state, run.x, run.now
    ahead = run.domain.project(x, step(run.domain, x, now, state["gradient"], state["size"], state.get("share")))
    if momentum < 1:
        ahead = run.domain.project(x, now + momentum * (ahead - now) + (1 - momentum) * (now - state["before"]))
    state["before"], state["now"] = now, ahead


def _keep_best(state: dict[str, Array], first: bool) -> None:
    if first:
        state["best"], state["best_value"], state["best_gradient"] = state["now"], state["value"], state["gradient"]
        return
    better = state["value"] > state["best_value"]
    if bool(better.all()):
        state["best"], state["best_value"], state["best_gradient"] = state["now"], state["value"], state["gradient"]
    elif bool(better.any()):
        state["best"] = _where(better, state["now"], state["best"])
        state["best_gradient"] = _where(better, state["gradient"], state["best_gradient"])
        state["best_value"] = state["value"].where(better, state["best_value"])


def _return(state: dict[str, Array], back: Array) -> None:
    """Let some samples go on from their best point."""
    state["now"] = _where(back, state["best"], state["now"])
    state["gradient"] = _where(back, state["best_gradient"], state["gradient"])
    state["value"] = state["best_value"].where(back, state["value"])


def _where(which: Array, these: Array, those: Array) -> Array:
    return these.where(column(which, these), those)


def _others(logits: Array, true: Array) -> Array:
    """(m, candidates) the other classes, those with the largest logits first."""
    order = logits.argsort(dim=1, descending=True, stable=True)
    return order[order != true[:, None]].reshape(len(logits), -1)[:, :CANDIDATES]


def _distance(gap: Array, slope: Array) -> Array:
    """(m,) how far a boundary seems; infinite where nothing leads there."""
    return (-gap / slope).nan_to_num(math.inf, math.inf, math.inf)


def _spread(values: Index, samples: Index, count: int) -> Index:
    """The rows of some samples among those of all."""
    spread = np.zeros((count, values.shape[1]), dtype=np.int64)
    spread[samples] = values
    return spread


def _checkpoints(steps: int) -> list[int]:
    """The steps at which step sizes are reconsidered; equation 4 of the paper."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(share * steps - 1e-9) for share in shares[1:] if share <= 1]
