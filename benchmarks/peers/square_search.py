"""A peer's Square attack on a given network, in an environment of its own; run by `benchmarks.score_based`.

The peer is asked for as many iterations as the cap has queries, which is what its own parameter calls queries. A counter outside
it sees every row. Each call asks about each sample that is not broken yet, so a sample that holds is asked about once a call.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch


class Counted(torch.nn.Module):
    """The network behind a counter, with the cast that ART needs under NumPy 2."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return self.network(x.float())


def art(model: Counted, x: torch.Tensor, y: torch.Tensor, radius: float, cap: int) -> Any:
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    loss = torch.nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        model, loss=loss, input_shape=x.shape[1:], nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = SquareAttack(classifier, norm=np.inf, max_iter=cap, eps=radius, batch_size=len(x), verbose=False)
    np.random.seed(0)  # noqa: NPY002
    return attack.generate(x.numpy(), y.numpy())


def torchattacks(model: Counted, x: torch.Tensor, y: torch.Tensor, radius: float, cap: int) -> Any:
    import torchattacks as peer

    return peer.Square(model, norm="Linf", eps=radius, n_queries=cap, seed=0)(x, y).numpy()


def autoattack(model: Counted, x: torch.Tensor, y: torch.Tensor, radius: float, cap: int) -> Any:
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(model, norm="Linf", n_queries=cap, eps=radius, seed=0, device="cpu")
    return attack.perturb(x, y).numpy()


PACKAGES = {"art": "adversarial-robustness-toolbox", "torchattacks": "torchattacks", "autoattack": "pyautoattack"}


def main(peer: str, network_file: str, samples_file: str, radius: str, cap: str, runs: str) -> None:
    """Print, as JSON, what the peer left standing and what it cost."""
    torch.set_num_threads(1)
    network = torch.jit.load(network_file).eval()
    data = np.load(samples_file)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    seconds, bare = [], []
    for _ in range(int(runs)):
        counted = Counted(network).eval()
        started = time.process_time()
        found = globals()[peer](counted, x.clone(), y.clone(), float(radius), int(cap))
        seconds.append(time.process_time() - started)
        batches = {size: x[:1].repeat(size, *[1] * (x.ndim - 1)) for size in set(counted.batches)}
        started = time.process_time()
        with torch.no_grad():
            for size in counted.batches:
                network(batches[size])
        bare.append(time.process_time() - started)
    rows = torch.as_tensor(found, dtype=torch.float32)
    within = bool(((rows - x).abs().max() <= float(radius) * (1 + 1e-5)) and rows.min() >= 0 and rows.max() <= 1)
    with torch.no_grad():
        standing = int((network(rows).argmax(dim=1) == y).sum())
    cost = {"calls": len(counted.batches), "rows": sum(counted.batches), "seconds": min(seconds), "bare": min(bare)}
    print(json.dumps({"version": version(PACKAGES[peer]), "standing": standing, "within": within, **cost}))


if __name__ == "__main__":
    main(*sys.argv[1:])
