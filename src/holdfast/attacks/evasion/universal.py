"""Universal perturbation: one change, learned on the attacker's own rows, that makes the model err on inputs it has not seen.

1. Show the model a batch of the attacker's rows with the change, and raise their average loss by a step of the change.
2. Cap each row's loss, so that rows that are lost already do not pull, and bring the change back into the ball.
3. After some passes, add the change to each attacked sample.

What is reported is therefore about held-out samples; attacked samples that are among the attacker's rows are refused. The
questions about the rows are charged to the attacked samples in turn, so that all of them share the price of learning.

Source: Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein (2020), "Universal adversarial training", section 3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.directions import require_radius, require_torch, step
from holdfast.attacks.evasion.losses import cross_entropy
from holdfast.attacks.evasion.minimal import annealed
from holdfast.core.arrays import Array, as_numpy
from holdfast.core.domain import Ball, Domain
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams, generator

CAPPED = 9.0
"""The largest cross-entropy of a row that counts."""
FIRST_STEP, LAST_STEP = 0.25, 0.01
"""Lengths of the steps, as shares of the radius."""


@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
    """One change for all samples, in a ball of any norm. Takes torch tensors.

    Attributes:
        rows, labels: the attacker's own, (m, ...) tensor and (m,) classes.
        passes: over the rows.
        batch: rows in one step.
        seed: of their order.
    """

    rows: Any = field(repr=False, compare=False)
    labels: NDArray[np.int64] = field(repr=False, compare=False)
    passes: int = 10
    batch: int = 64
    seed: int = 0
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        require_own_rows(self.rows, self.labels)
        if min(self.passes, self.batch) < 1:
            raise ConfigurationError("a universal perturbation needs at least one pass and one row in a batch")

    def perturb(self, oracle: Oracle, x: Array, _: NDArray[np.int64], domain: Domain, __: SampleStreams) -> Array:
        """Each sample with the change that was learned from the rows.

        Raises:
            ConfigurationError: the domain is no ball.
            InvalidData: a sample is one of the rows, or of another shape.
        """
        require_radius(domain, "a universal perturbation")
        require_held_out(x, self.rows)
        return domain.project(x, x + self.learn(oracle, x, domain))

    def learn(self, oracle: Oracle, x: Array, domain: Domain) -> Array:
        """The change, in the shape of one sample, learned for as long as the samples of `oracle` can pay."""
        import torch

        if not isinstance(domain, Ball):
            raise ConfigurationError("one change for all rows of a table would not be valid for each", hint="Use APGD.")
        rows, labels = self.rows.to(x), torch.as_tensor(self.labels, device=x.device)
        wide = as_numpy(domain.high) - as_numpy(domain.low)
        ball = Ball(norm=domain.norm, radius=domain.radius, low=-wide, high=wide)
        origin, turns = torch.zeros_like(x[:1]), Turns(oracle)
        change, starts = origin, range(0, len(rows), self.batch)
        for turn in range(self.passes * len(starts)):
            start = turn % len(starts)
            if start == 0:
                order = generator(self.seed, "pass", turn).permutation(len(rows))
            chosen = order[start * self.batch : (start + 1) * self.batch]
            wanted = rows[chosen] + change
            shown = domain.repair(rows[chosen], wanted)
            gradient = turns.gradient(shown, capped_loss(labels[chosen]))
            if gradient is None:
                break
            average = torch.where(shown == wanted, gradient, 0).mean(dim=0, keepdim=True)
            length = domain.radius * annealed(FIRST_STEP, LAST_STEP, turn / (self.passes * len(starts)))
            change = ball.project(origin, step(ball, origin, change, average, origin.new_full((1,), length)))
        return change[0]


class Turns:
    """Questions about rows that belong to no attacked sample, charged to the samples in turn."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle, self._next = oracle, 0

    def gradient(self, rows: Array, loss: Callable[[Array], Array]) -> Array | None:
        """The gradient (m, ...) of the loss of each row, or None once some sample cannot pay its part."""
        left = self._oracle.remaining()
        owners = (self._next + np.arange(len(rows))) % len(left)
        if (np.bincount(owners, minlength=len(left)) > left).any():
            return None
        self._next = int(owners[-1]) + 1
        with self._oracle.unwatched():
            gradient = self._oracle.value_and_gradient(rows, loss, owners)[1]
        return gradient.nan_to_num(0.0, 0.0, 0.0)


def capped_loss(labels: Array) -> Callable[[Array], Array]:
    """The cross-entropy of each row, up to `CAPPED`."""
    return lambda logits: cross_entropy(logits, labels, labels).clamp_max(CAPPED)


def require_own_rows(rows: Any, labels: NDArray[np.int64]) -> None:
    """Return if an attacker has rows to learn from.

    Raises:
        InvalidData: there are none, they are no torch tensor, or their labels are not as many.
    """
    require_torch(rows)
    if not len(rows) or len(rows) != len(labels):
        raise InvalidData(f"{len(rows)} rows of the attacker's own with {len(labels)} labels")


def require_held_out(x: Array, rows: Any) -> None:
    """Return if no attacked sample is one of the rows that were learned from.

    Raises:
        InvalidData: some are, or their shapes differ.
    """
    if tuple(x.shape[1:]) != tuple(rows.shape[1:]):
        raise InvalidData(f"samples of shape {tuple(x.shape[1:])}, rows of shape {tuple(rows.shape[1:])}")
    known = {row.tobytes() for row in as_numpy(rows.to(x.dtype))}
    seen = sum(row.tobytes() in known for row in as_numpy(x))
    if seen:
        raise InvalidData(f"{seen} of {len(x)} attacked samples are among the rows that are learned from", hint="Hold them out.")
