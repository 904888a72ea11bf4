"""Whether masked gradients are seen for what they are: eight masks and four honest networks on digits.

The same naturally trained network behind eight masks, and four honest networks beside it; 64 held-out digits, Linf 0.2. The truth
is what gradients of the network without its mask find on the masked one (BPDA, straight through where the input is rounded; EOT
under noise), with several starts and all losses, judged on the masked model itself. What Foolbox's and ART's PGD-40 and the
standard version of AutoAttack report stands beside it, each in an environment of its own. CPU seconds, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.label_only import PEERS, peer_python
from benchmarks.recording import Recorder
from holdfast.attacks.evasion.adaptive import EOT, Twin
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.diagnosis import Diagnosis, diagnose
from holdfast.core.domain import Ball
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

CLAIM = "evasion-6"
RADIUS = 0.2
SAMPLES = 64
TRUE_STARTS = 2
TRUE_EVALUATIONS = 200
TRUE_STEPS = 60
LIBRARIES = ("foolbox", "art", "autoattack")


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="not needed: the data come with scikit-learn")
    parser.add_argument("--quick", action="store_true", help="without the peers")
    options = parser.parse_args(argv)
    import torch

    from benchmarks.peers.masks import HONEST, MASKS

    torch.set_num_threads(1)
    with threadpool_limits(1):
        nets, x, y = trained()
        libraries = {} if options.quick else {name: run_peer(name, nets, x, y) for name in LIBRARIES}
        found, true = {}, {}
        for name in [*MASKS, *HONEST]:
            found[name] = diagnose(served(name, nets, x), x, y, Ball(norm="linf", radius=RADIUS), seed=0)
            true[name] = truth(name, nets, x, y)
            show(name, found[name], true[name], libraries)
    record = Recorder("masking", ("numpy", "torch", "scikit-learn"))
    called = sum(not found[name].believable for name in MASKS)
    record.at_least(CLAIM, f"masks of {len(MASKS)} called not believable with a mechanism", called, len(MASKS))
    accused = sum(not found[name].believable for name in HONEST)
    record.at_most(CLAIM, f"honest networks of {len(HONEST)} called not believable", accused, 0)
    for name in [*MASKS, *HONEST]:
        gap = found[name].robust_accuracy - true[name]
        record.between(CLAIM, f"{name}: reported robust accuracy less the truth", gap, -0.05, 0.05)
    slowest = max(each.seconds for each in found.values())
    record.at_most(CLAIM, "CPU seconds of the slowest diagnosis, 64 digits", slowest, 30)
    fewest = min(found[name].evaluations for name in MASKS if name.startswith("noise"))
    record.at_least(CLAIM, "evaluations of each final sample under noise", fewest, 20)
    for library, answer in libraries.items():
        over = [cell["robust"] - true[name] for name in MASKS if "robust" in (cell := answer["found"][name])]
        record.at_least(
            CLAIM, f"{library} {answer['version']}: most that it overstates a mask by", max(over, default=float("nan")), 0.05
        )
    return record.write()


def trained() -> tuple[dict[str, Any], Any, NDArray[np.int64]]:
    """The honest networks, and digits that they were not trained on and the natural one gets right."""
    import torch
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy, nll_loss

    from benchmarks.peers.masks import HONEST, network

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.from_numpy((digits.images[order] / 16).astype(np.float32))[:, None]
    y = torch.from_numpy(digits.target[order].astype(np.int64))
    nets = {}
    for kind in HONEST:
        torch.manual_seed(0)
        net = network(kind)
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(15 if kind == "adversarially trained" else 30):
            for rows in torch.randperm(1300).split(64):
                inputs, labels = x[rows], y[rows]
                if kind == "adversarially trained":
                    inputs = _moved(net, inputs, labels, 0.1)
                optimiser.zero_grad()
                answer = net(inputs)
                loss = nll_loss(answer.log(), labels) if "probabilities" in kind else cross_entropy(answer, labels)
                loss.backward()
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        nets[kind] = net.eval()
    with torch.no_grad():
        right = np.flatnonzero((nets["natural"](x[1300:]).argmax(1) == y[1300:]).numpy())[:SAMPLES]
    return nets, x[1300 + right], y[1300 + right].numpy()


def _moved(net: Any, x: Any, y: Any, radius: float) -> Any:
    import torch

    change = (torch.rand_like(x) * 2 - 1) * radius
    for _ in range(7):
        change.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(net((x + change).clamp(0, 1)), y)
        (slope,) = torch.autograd.grad(loss, change)
        change = (change.detach() + radius / 3 * slope.sign()).clamp(-radius, radius)
    return (x + change).clamp(0, 1)


def served(name: str, nets: dict[str, Any], x: Any) -> TorchModel:
    """The network as it is diagnosed; rounded probabilities do not add up to 1, so that their form must be stated."""
    from benchmarks.peers.masks import model

    output: Any = "logits" if name == "probabilities rounded to 2 digits" else None
    return TorchModel(
        model(name, nets).eval(), Context(sample=x[:8].numpy(), classes=tuple("0123456789"), fixed=True, output=output)
    )


def truth(name: str, nets: dict[str, Any], x: Any, y: NDArray[np.int64]) -> float:
    """The robust accuracy that an attacker leaves who knows the mask."""
    import torch

    from benchmarks.peers.masks import HONEST, RANDOM, ROUNDING, Masked, rounded

    ball = Ball(norm="linf", radius=RADIUS)
    model = served(name, nets, x)
    net = nets[name if name in HONEST else "natural"]
    if name in ROUNDING:
        net = Masked(net, lambda inner, rows: inner(rows + (rounded(rows) - rows).detach()))
    context = Context(sample=x[:8].numpy(), classes=tuple("0123456789"), fixed=True)
    if name in RANDOM:
        return _under_noise(model, x, y, ball)
    twin: Any = TorchModel(net, context)
    through = model if name in HONEST else Twin(_Labels(model), twin)
    standing = model.labels(x) == y
    attack = APGD(steps=100, losses=("ce", "dlr", "targeted"), targets=9)
    for start in range(TRUE_STARTS):
        rows = np.flatnonzero(standing)
        if len(rows):
            outcome = attack.run(through, x[rows], y[rows], ball, seed=start)
            standing[rows[outcome.success]] = False
    torch.manual_seed(0)
    return float(standing.mean())


class _Labels:
    """The model's labels alone, so that losses are those of the twin."""

    def __init__(self, model: TorchModel) -> None:
        self.model, self.access = model, min(model.access, type(model.access)(0))

    def labels(self, x: Any) -> Any:
        return self.model.labels(x)

    def scores(self, x: Any) -> Any:
        return self.model.scores(x)

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        return self.model.value_and_gradient(x, loss)


def _under_noise(model: TorchModel, x: Any, y: NDArray[np.int64], ball: Ball) -> float:
    """The mean share of right answers under projected ascent of the average loss, the worst of the starts for each sample."""
    import torch
    from torch.nn.functional import cross_entropy

    labels, mean = torch.from_numpy(y), EOT(model, 20)
    finals, shares = [], []
    for start in range(TRUE_STARTS):
        source = torch.Generator().manual_seed(start)
        now = ball.project(x, x + RADIUS * (2 * torch.rand(x.shape, generator=source) - 1))
        for turn in range(TRUE_STEPS):
            _, slope = mean.value_and_gradient(now, lambda logits: cross_entropy(logits, labels, reduction="none"))
            now = ball.project(x, now + RADIUS / 4 * (1 - turn / TRUE_STEPS) * slope.sign())
        finals.append(now)
        shares.append(np.mean([model.labels(now) == y for _ in range(50)], axis=0))
    worst = np.argmin(shares, axis=0)
    final = torch.stack(finals)[torch.from_numpy(worst), torch.arange(len(x))]
    return float(np.mean([model.labels(final) == y for _ in range(TRUE_EVALUATIONS)]))


def run_peer(library: str, nets: dict[str, Any], x: Any, y: NDArray[np.int64]) -> Any:
    """What a library reports, by mask and network."""
    import torch

    python = peer_python(library)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({kind: net.state_dict() for kind, net in nets.items()}, folder / "weights.pt")
        np.savez(folder / "samples.npz", x=x.numpy(), y=y)
        script = [str(python), str(PEERS / "masked_attacks.py"), library]
        done = subprocess.run(
            [*script, str(folder / "weights.pt"), str(folder / "samples.npz"), str(RADIUS)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"{library} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, found: Diagnosis, true: float, libraries: dict[str, Any]) -> None:
    """One row of the table."""
    peers = []
    for library, answer in libraries.items():
        cell = answer["found"][name]
        value = f"{cell['robust']:.0%}" if "robust" in cell else cell["error"]
        peers.append(f"{library} {value} in {cell['seconds']:.0f} s")
    print(
        f"{name:34} truth {true:4.0%}, reported {found.robust_accuracy:4.0%} [{found.low:.0%}, {found.high:.0%}], "
        f"PGD on it {found.claimed:4.0%}, {found.seconds:4.1f} s: {found.verdict}\n{'':34} {'; '.join(peers)}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
