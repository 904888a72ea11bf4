"""Transfer: evasion through a copy of the model that was trained on its answers, and verified on the model itself.

1. `Surrogate.trained` asks the model about rows that the attacker owns, learns the answers, asks about the rows moved along
   the copy's own gradients, where the copy learns most, and learns again. Each answer is a query and is counted.
2. `Transfer` attacks the copy by gradients, which costs nothing, and asks the model about what it found, once for each attack.

The copy is made before the attack, so that what is found for a sample does not depend on the samples beside it.

Source: Papernot, McDaniel, Goodfellow, Jha, Celik and Swami (2017), "Practical black-box attacks against machine learning",
algorithm 1 and equation 4; answers with scores are learned as soft labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.encoded import EncodedDomain
from holdfast.attacks.evasion.momentum import Momentum
from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError, InvalidData, MissingExtra
from holdfast.core.oracle import Access, Cost, Oracle, Predictor
from holdfast.core.seeds import SampleStreams, derive
from holdfast.core.tabular import Tabular

LEAST_SPREAD = 1e-6
"""Columns that spread less are not scaled up."""


class Surrogate:
    """A copy of a model, with gradients; made by `trained`.

    Attributes:
        cost: what its answers cost; `cost.queries` has one entry, the queries of the whole copy.
        agreement: share of the last asked rows that it answered as the model did before it learned them.
    """

    access = Access.GRADIENTS

    def __init__(self, network: Any, cost: Cost, agreement: float) -> None:
        self._network, self.cost, self.agreement = network, cost, agreement

    @classmethod
    def trained(
        cls,
        model: Predictor,
        rows: Array,
        domain: Domain,
        *,
        classes: int,
        queries: int,
        seed: int,
        access: Access = Access.LABELS,
        rounds: int = 3,
        epochs: int = 60,
        decode: Callable[[Array], Any] | None = None,
    ) -> Surrogate:
        """Copy a model.

        Args:
            model: the model as it is served.
            rows: (m, ...) rows that the attacker owns, in the attack's encoding; their labels are not needed.
            domain: what a valid row is; rows are moved within it, by its radius where that is finite.
            classes: how many classes the model tells apart.
            queries: most rows that the model may be asked about in all.
            seed: decides everything random.
            access: whether labels or scores are learned.
            rounds: how often the asked rows are added to.
            epochs: passes over the answers after each round.
            decode: from attack arrays to model inputs.

        Raises:
            AccessDenied: the model gives less than `access`.
            ConfigurationError: no rows, queries, rounds or epochs.
            MissingExtra: torch is not installed.
        """
        torch = _torch()
        if not len(rows) or min(queries, rounds, epochs) < 1 or classes < 2:
            raise ConfigurationError("a surrogate needs rows, queries, rounds, epochs and at least two classes")
        oracle = Oracle(model, Access(min(access, Access.SCORES)), 1, queries, decode)
        streams = SampleStreams(seed, ["surrogate"])
        kept = np.argsort(streams.uniform(np.zeros(1, dtype=np.int64), (len(rows),))[0], kind="stable")
        fresh = rows[kept[: max(1, queries // 2**rounds)]]
        seen: list[Any] = []
        learned: list[Any] = []
        agreement = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights") % 2**63)
            network = _network(fresh, classes)
            while len(fresh):
                answers = _asked(oracle, fresh, classes)
                tensor = torch.as_tensor(as_numpy(fresh), dtype=torch.float32)
                with torch.no_grad():
                    agreement = float((network(tensor).argmax(dim=1) == answers.argmax(dim=1)).float().mean())
                seen.append(tensor)
                learned.append(answers)
                _learn(network, torch.cat(seen), torch.cat(learned), epochs)
                fresh = fresh[:0]
                if len(seen) <= rounds:
                    fresh = _moved(network, rows, torch.cat(seen), torch.cat(learned), domain, oracle, streams)
        return cls(network, oracle.cost, agreement)

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices."""
        return np.asarray(as_numpy(self.scores(x)).argmax(axis=1), dtype=np.int64)

    def scores(self, x: Any) -> Array:
        """(n, k) logits, in x's array library."""
        torch = _torch()
        with torch.no_grad():
            answer = self._network(torch.as_tensor(x).float().cpu())
        return as_like(x, answer)

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The loss (n,) of the logits and its gradient in x's shape and type."""
        torch = _torch()
        leaf = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            value = loss(self._network(leaf.float().cpu()).to(x.device))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Attack a copy by gradients, and the model with what that finds.

    Attributes:
        surrogate: the copy; what it cost is not in the outcome's cost but in its own.
        by: attacks on the copy, whose results the model is asked about one after another; those that go on past the first
            error carry over more often.
    """

    surrogate: Surrogate = field(repr=False, compare=False)
    by: tuple[Attack, ...] = (Momentum(steps=20), Momentum(steps=20, loss="margin"), Momentum(steps=20, decay=0.0))
    access = Access.LABELS

    def __post_init__(self) -> None:
        if not self.by:
            raise ConfigurationError("transfer needs an attack on the copy")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The first result that the model misclassifies, else the last, for each sample.

        Raises:
            ConfigurationError: the radius is not finite.
        """
        torch = _torch()
        if not math.isfinite(domain.radius):
            raise ConfigurationError("transfer searches within a radius", hint="Declare domain.radius.")
        free = EncodedDomain(tabular=domain) if isinstance(domain, Tabular) else domain
        result = domain.project(x, x)
        open_ = np.arange(len(x))
        for attack in self.by:
            open_ = open_[oracle.remaining()[open_] > 0]
            if not len(open_):
                break
            inside = torch.as_tensor(x[open_])
            shadow = Oracle(self.surrogate, attack.access, len(open_))
            found = attack.perturb(shadow, inside, y[open_], free, streams.part(open_))
            rows = domain.project(x[open_], as_like(x, found))
            result[open_] = rows
            open_ = open_[oracle.labels(rows, open_) == y[open_]]
        return result


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "torch", "The transfer attack") from error
    return torch


def _network(rows: Array, classes: int) -> Any:
    """Two convolutions for images, two hidden layers for anything else; scaled by the rows."""
    torch = _torch()
    shape = tuple(rows.shape[1:])
    plain = as_numpy(rows).reshape(len(rows), -1)
    if len(shape) == 3 and shape[0] <= 4:
        size = math.prod(shape[1:])
        return torch.nn.Sequential(
            torch.nn.Conv2d(shape[0], 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(16 * size, classes),
        )
    spread = plain.std(axis=0)
    first = torch.nn.Linear(plain.shape[1], 64)
    with torch.no_grad():
        first.weight /= torch.as_tensor(np.where(spread > LEAST_SPREAD, spread, 1.0), dtype=torch.float32)
        first.bias -= first.weight @ torch.as_tensor(plain.mean(axis=0), dtype=torch.float32)
    rest = (torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, classes))
    return torch.nn.Sequential(torch.nn.Flatten(), first, *rest)


def _asked(oracle: Oracle, rows: Array, classes: int) -> Any:
    """(n, classes) the model's answers as probabilities; each row is a query."""
    torch = _torch()
    owner = np.zeros(len(rows), dtype=np.int64)
    if oracle.access < Access.SCORES:
        labels = oracle.labels(rows, owner)
        if labels.min() < 0 or labels.max() >= classes:
            raise InvalidData(f"the model answered class {int(labels.max())} of {classes}")
        return torch.nn.functional.one_hot(torch.as_tensor(labels), classes).float()
    scores = as_numpy(oracle.scores(rows, owner))
    if scores.shape[1] != classes:
        raise InvalidData(f"the model answered {scores.shape[1]} scores for {classes} classes")
    return torch.as_tensor(scores).softmax(dim=1).float()


def _learn(network: Any, rows: Any, answers: Any, epochs: int) -> None:
    torch = _torch()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    with torch.enable_grad():
        for _ in range(epochs):
            for batch in torch.randperm(len(rows)).split(64):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(network(rows[batch]), answers[batch]).backward()
                optimiser.step()
    for parameter in network.parameters():
        parameter.grad = None


def _moved(network: Any, rows: Array, seen: Any, answers: Any, domain: Domain, oracle: Oracle, streams: SampleStreams) -> Array:
    """As many asked rows again, as the budget allows, each moved to where the copy doubts its answer."""
    torch = _torch()
    count = min(len(seen), int(oracle.remaining()[0]))
    picked = np.argsort(streams.uniform(np.zeros(1, dtype=np.int64), (len(seen),))[0], kind="stable")[:count]
    leaf = seen[picked].clone().requires_grad_(True)
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(network(leaf), answers[picked], reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf)
    spread = as_numpy(rows).std(axis=0)
    reach = domain.radius if math.isfinite(domain.radius) and not isinstance(domain, Tabular) else 1.0
    step = reach if reach < 1 else spread * reach
    far = seen[picked].numpy() + step * np.sign(slope.numpy())
    return domain.within(math.inf).repair(as_like(rows, seen[picked]), as_like(rows, far))
