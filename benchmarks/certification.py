"""What the certificates cost and whether they hold.

Interval and linear bounds against a dense-matrix computation in NumPy that shares no code with them; randomized smoothing with
10,000 noisy copies against the bare forward passes on the same rows; its certificates against a model whose true radius is known,
1,000 times at each of four points; certified against attacked distances on digits, over two networks and two norms: none may be
above an attack's. CPU seconds, one thread, the best of five.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.label_only import digits_network
from benchmarks.recording import Recorder
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.certification.bounds import certified_radii, logit_bounds
from holdfast.certification.smoothing import Smoothing
from holdfast.core.domain import Ball
from holdfast.core.oracle import Access
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

COST, SANDWICH = "evasion-10", "evasion-5"
DENSE = Path(__file__).parent.parent / "tests" / "certification"
ROUNDS = 5


class Half:
    """Class 1 where the first feature exceeds 0: the vote's true radius is that feature."""

    access = Access.LABELS

    def labels(self, x: Any) -> NDArray[np.int64]:
        return (np.asarray(x)[:, 0] > 0).astype(np.int64)

    def scores(self, _: Any) -> Any:
        raise AssertionError("smoothing needs labels only")

    def value_and_gradient(self, _: Any, __: Any) -> Any:
        raise AssertionError("smoothing needs labels only")


class Timed:
    """A module that adds up the CPU seconds and rows of its own forward passes."""

    def __init__(self, network: Any) -> None:
        self.network, self.seconds, self.rows = network, 0.0, 0
        network.register_forward_pre_hook(self._start)
        network.register_forward_hook(self._stop)

    def _start(self, *_: Any) -> None:
        self.began = time.process_time()

    def _stop(self, _: Any, given: Any, __: Any) -> None:
        self.seconds += time.process_time() - self.began
        self.rows += len(given[0])


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="not needed: the data come with scikit-learn")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    record = Recorder("certification", ("numpy", "scipy", "torch", "scikit-learn"))
    with threadpool_limits(1):
        agreement(record, 1 if options.quick else 4)
        smoothing_cost(record, 4 if options.quick else 16)
        miscoverage(record)
        sandwich(record, 60 if options.quick else 120)
    return record.write()


def bounded_network(seed: int) -> Any:
    """A network of every affine layer that has known bounds, with lively weights."""
    from torch import nn, random

    with random.fork_rng():
        random.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, stride=2),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.AvgPool2d(2, stride=1),
            nn.Conv2d(3, 6, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 12),
            nn.ReLU(),
            nn.Linear(12, 10),
        )
        for parameter in net.parameters():
            parameter.data.mul_(2)
        net[1].running_mean.normal_(0, 0.1)
        net[1].running_var.uniform_(0.5, 2)
        net[1].bias.data.normal_()
    return net.eval()


def agreement(record: Recorder, seeds: int) -> None:
    """Both bounds against dense matrices."""
    import torch

    sys.path.insert(0, str(DENSE))
    from dense import box, crown, ibp, least_l2, least_linf, pieces

    intervals, linear, pairs = 0.0, 0.0, 0
    for seed in range(seeds):
        net = bounded_network(seed)
        x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        parts = pieces(net, (1, 8, 8))
        for norm, radius in (("linf", 0.01), ("linf", 0.05), ("linf", 0.3), ("l2", 0.1), ("l2", 1.0)):
            ball = Ball(norm=norm, radius=radius)  # type: ignore[arg-type]
            low, high = logit_bounds(net, x, ball)
            small, large = logit_bounds(net, x, ball, "ibp")
            for row in range(len(x)):
                flat = x[row].double().numpy().ravel()
                least = least_linf if norm == "linf" else least_l2
                down = crown(parts, flat, radius, 0, 1, np.eye(10), least)
                up = -crown(parts, flat, radius, 0, 1, -np.eye(10), least)
                linear = max(linear, float(np.abs(down - low[row]).max()), float(np.abs(up - high[row]).max()))
                pairs += 10
                if norm == "linf":
                    other = ibp(parts, box(flat, radius, 0, 1))[-1]
                    intervals = max(intervals, float(np.abs(np.array([small[row], large[row]]) - other).max()))
    print(f"{pairs} pairs of bounds: intervals within {intervals:.1e}, linear bounds within {linear:.1e} of dense matrices")
    record.at_most(COST, "IBP: largest difference from dense matrices, Linf", intervals, 1e-5)
    record.at_most(COST, "CROWN: largest difference from the recursion on dense matrices, Linf and L2", linear, 1e-4)


def smoothing_cost(record: Recorder, samples: int) -> None:
    """10,000 noisy copies of each sample against the same forward passes alone, timed where they happen."""
    import torch

    network, x, _ = digits_network(samples, 0)
    timed = Timed(network.eval())
    model = TorchModel(network, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True))
    smoothing, times = Smoothing(sigma=0.25, samples=10_000), []
    for _ in range(ROUNDS):
        timed.seconds, timed.rows = 0.0, 0
        started = time.process_time()
        votes = smoothing.certify(model, torch.from_numpy(x), seed=0)
        times.append((time.process_time() - started, timed.seconds))
    ours, bare = min(times)
    ratio = min(whole / part for whole, part in times)
    print(f"smoothing, {samples} digits: {ours:.2f} CPU s, bare {bare:.2f}, best ratio {ratio:.2f} (limit 1); {timed.rows} rows")
    record.at_most(COST, "smoothing with N = 10,000: CPU over that of its bare forward passes", ratio, 1.3)
    exact = bool((votes.queries == 10_100).all()) and timed.rows == 10_100 * samples
    record.holds(COST, "each sample is asked about exactly N0 + N times", exact)


def miscoverage(record: Recorder) -> None:
    """How often a certificate exceeds the true radius, for several true shares and two alphas, 1,000 times each."""
    for alpha in (0.001, 0.05):
        shares = []
        for margin in (0.02, 0.1, 0.3, 0.6):
            x = np.tile(np.array([[margin, 0.0]], dtype=np.float32), (1000, 1))
            votes = Smoothing(sigma=0.25, samples=10_000, alpha=alpha).certify(Half(), x, seed=7)
            wrong = ((votes.label == 1) & (votes.radius > margin)) | (votes.label == 0)
            print(f"alpha {alpha}, true radius {margin}: {wrong.sum()} of 1,000 wrong, {(votes.label < 0).sum()} abstained")
            shares.append(float(wrong.mean()))
        chance = 2 * math.sqrt(alpha * (1 - alpha) / 1000)
        mean, worst = float(np.mean(shares)), max(shares)
        record.at_most(
            COST, f"share of certificates that are wrong, 1,000 repeats at each of 4 points, alpha = {alpha:g}", mean, alpha
        )
        record.at_most(
            COST, f"the worst point, with two standard errors of 1,000 repeats, alpha = {alpha:g}", worst, alpha + chance
        )


def small_network(seed: int, samples: int) -> tuple[Any, Any, NDArray[np.int64]]:
    """A network that CROWN bounds in milliseconds, and digits that it was not trained on."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.from_numpy((digits.images[order] / 16).astype(np.float32))[:, None]
    y = torch.from_numpy(digits.target[order])
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(12):
        for rows in torch.randperm(1300).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    return net.eval(), x[1300 : 1300 + samples], y[1300 : 1300 + samples].numpy()


def sandwich(record: Recorder, samples: int) -> None:
    """Certified against attacked distances, sample by sample."""
    held, violations, tighter = 0, 0, math.inf
    for seed in (0, 1):
        network, rows, y = small_network(seed, samples)
        model = TorchModel(network, Context(sample=rows[:2], classes=tuple("0123456789"), fixed=True))
        for norm, most in (("linf", 0.3), ("l2", 1.5)):
            ball = Ball(norm=norm, radius=most)  # type: ignore[arg-type]
            intervals, linear = (certified_radii(network, rows, y, ball, method) for method in ("ibp", "crown"))  # type: ignore[arg-type]
            lower = np.maximum(intervals, linear)
            walk = HopSkipJump().run(model, rows, y, ball.within(math.inf), seed=seed, budget=1000)
            nearest = np.where(walk.success, distance(norm, rows, walk.adversarial), np.inf)
            for radius in np.quantile(nearest[np.isfinite(nearest)], [0.05, 0.2, 0.4, 0.6, 0.8]):
                step = APGD(steps=30, losses=("ce",)).run(model, rows, y, ball.within(float(radius)), seed=seed)
                nearest = np.minimum(nearest, np.where(step.success, distance(norm, rows, step.adversarial), np.inf))
            nearest[~walk.correct] = 0.0
            violations += int((lower > nearest).sum())
            held += int((lower > 0).sum())
            tighter = min(tighter, float(np.median(linear) / max(np.median(intervals), 1e-9)))
            closest = float((nearest[lower > 0] / lower[lower > 0]).min())
            print(
                f"network {seed}, {norm}: median certified {np.median(intervals):.4f} (IBP), {np.median(linear):.4f} (CROWN), "
                f"attacked {np.median(nearest):.4f}; smallest attacked / certified {closest:.2f}",
                flush=True,
            )
    record.at_least(SANDWICH, "neural samples with a certified radius above 0", held, 200)
    record.at_most(SANDWICH, "neural samples with an attack closer than certified", violations, 0)
    record.at_least(COST, "median radius of CROWN over that of IBP, the smallest of networks and norms", tighter, 1.0)


def distance(norm: str, x: Any, other: Any) -> NDArray[np.float64]:
    """(n,) in float64."""
    change = (other.double() - x.double()).flatten(1)
    return np.asarray(change.abs().amax(1) if norm == "linf" else change.norm(dim=1))


if __name__ == "__main__":
    sys.exit(main())
