"""How close the label-only attack comes with 1,000 queries a sample, beside ART's HopSkipJump on the same network and samples.

A small convolutional network on scikit-learn's digits; 64 samples that it gets right; L2; the same cap for both, held against
counters that stand outside the attacks; random starts for both. ART runs in an environment of its own, in several settings, of
which the best counts. What counts is what each returns. ART returns the point after its last step, which lies beyond the
boundary; the closest misclassified row that it asked about on its way is shown beside it, and held against ours too. CPU ratio:
CPU time over that of the bare forward passes of the same batches, whose limit is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import Recorder
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.core.domain import Ball
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

CLAIM = "loop-7"
CAP = 1000
SAMPLES = 64
BATCHES = (1, 7, 64)
PEERS = Path(__file__).parent / "peers"
SETTINGS = tuple({"init_eval": count, "max_eval": CAP, "init_size": 100} for count in (10, 25, 50, 100))


class Counted:
    """A model behind a counter that stands outside the attack."""

    def __init__(self, model: TorchModel) -> None:
        self.model, self.access = model, model.access
        self.batches: list[int] = []

    def labels(self, x: Any) -> NDArray[np.int64]:
        self.batches.append(len(x))
        return self.model.labels(x)

    def scores(self, _: Any) -> Any:
        raise AssertionError("a label-only attack asked for scores")

    def value_and_gradient(self, _: Any, __: Any) -> Any:
        raise AssertionError("a label-only attack asked for gradients")


@dataclass(frozen=True)
class Result:
    """What an attack found.

    Attributes:
        distances: (n,) L2 of the returned example; infinite where there is none.
        closest: (n,) L2 of the closest misclassified row that was asked about.
        rows: (n,) queries of each sample by the outside counter.
        calls, seconds, bare: model calls, CPU seconds, and those of the bare forward passes.
    """

    distances: NDArray[np.float64]
    closest: NDArray[np.float64]
    rows: NDArray[np.int64]
    calls: int
    seconds: float
    bare: float

    @property
    def median(self) -> float:
        return float(np.median(self.distances))


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="not needed: the data come with scikit-learn")
    parser.add_argument("--quick", action="store_true", help="16 samples and one setting of ART")
    options = parser.parse_args(argv)
    samples, settings = (16, SETTINGS[1:2]) if options.quick else (SAMPLES, SETTINGS)
    import torch

    torch.set_num_threads(1)
    network, x, y = digits_network(samples)
    record = Recorder("label_only", ("numpy", "torch", "scikit-learn"))
    network.train()
    before = fingerprint(network, x)
    ours = {batch: attack(network, x, y, batch) for batch in BATCHES}
    untouched = fingerprint(network, x) == before
    network.eval()
    peer_version, peers = run_art(network, x, y, settings)
    best = min(peers, key=lambda name: peers[name].median)
    show(ours, peers, peer_version)
    largest = ours[max(BATCHES)]
    medians = [result.median for result in ours.values()]
    record.holds(CLAIM, "weights, param.grad, training mode, random state and inputs are as before", untouched)
    record.holds(CLAIM, "every sample has an example", all(np.isfinite(result.distances).all() for result in ours.values()))
    record.at_most(CLAIM, "most queries of one sample, by the outside counter", float(ours[1].rows.max()), CAP)
    asked = max(float(result.rows.max()) for result in ours.values())
    record.at_most(CLAIM, "most queries of one sample, by the ledger, in all batches", asked, CAP)
    record.at_most(CLAIM, "largest over smallest median L2 of batches of 1, 7 and 64", max(medians) / min(medians), 1.02)
    record.at_most(CLAIM, f"median L2 over that of ART ({best}) at an equal cap", largest.median / peers[best].median, 0.85)
    credited = min(float(np.median(result.closest)) for result in peers.values())
    record.at_most(CLAIM, "the same, if ART returned the closest row it asked about", largest.median / credited, 1.0)
    record.at_most(CLAIM, "most queries credited to ART for one sample", float(peers[best].rows.max()), CAP)
    return record.write()


def digits_network(samples: int) -> tuple[Any, NDArray[np.float32], NDArray[np.int64]]:
    """The network, and samples it was not trained on and gets right."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images[order] / 16).astype(np.float32)[:, None]
    y = digits.target[order].astype(np.int64)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(512, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    inputs, labels = torch.from_numpy(x[:1300]), torch.from_numpy(y[:1300])
    for _ in range(30):
        for rows in torch.randperm(1300).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[rows]), labels[rows]).backward()
            optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    network.eval()
    with torch.no_grad():
        right = network(torch.from_numpy(x[1300:])).argmax(dim=1).numpy() == y[1300:]
    print(f"network: {right.mean():.1%} of {len(right)} held-out digits right")
    chosen = 1300 + np.flatnonzero(right)[:samples]
    return network, x[chosen], y[chosen]


def attack(network: Any, x: NDArray[np.float32], y: NDArray[np.int64], batch: int) -> Result:
    """Our attack in batches of that size; the outside counter tells samples apart only in batches of one."""
    import torch

    counted = Counted(TorchModel(network, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True)))
    ball = Ball(norm="l2", radius=math.inf, low=0.0, high=1.0)
    distances, rows, calls = [], [], 0
    started = time.process_time()
    for start in range(0, len(x), batch):
        part = np.arange(start, min(start + batch, len(x)))
        asked = len(counted.batches)
        outcome = HopSkipJump().run(counted, x[part], y[part], ball, seed=0, units=part, budget=CAP)
        distances += np.where(outcome.success, outcome.distance, np.inf).tolist()
        evaluator = 2 if outcome.success.all() else 3
        seen = sum(counted.batches[asked:])
        rows += outcome.cost.queries.tolist() if batch > 1 else [seen - evaluator]
        calls += outcome.cost.calls
    seconds = time.process_time() - started
    network.eval()
    started = time.process_time()
    with torch.no_grad():
        for size in counted.batches:
            network(torch.from_numpy(np.repeat(x[:1], size, axis=0)))
    bare = time.process_time() - started
    network.train()
    return Result(np.array(distances), np.array(distances), np.array(rows), calls, seconds, bare)


def fingerprint(network: Any, x: NDArray[np.float32]) -> tuple[Any, ...]:
    """Everything about the user's model and inputs that an attack might change."""
    import torch

    return (
        tuple(value.numpy().tobytes() for value in network.state_dict().values()),
        tuple(parameter.grad is None for parameter in network.parameters()),
        tuple(part.training for part in network.modules()),
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002
        x.tobytes(),
    )


def run_art(
    network: Any, x: NDArray[np.float32], y: NDArray[np.int64], settings: tuple[dict[str, int], ...]
) -> tuple[str, dict[str, Result]]:
    """ART's version and what each of its settings found."""
    import torch

    python = peer_python("art")
    with tempfile.TemporaryDirectory() as folder:
        saved, samples = Path(folder) / "network.pt", Path(folder) / "samples.npz"
        torch.jit.trace(network, torch.from_numpy(x[:2])).save(str(saved))
        np.savez(samples, x=x, y=y)
        done = subprocess.run(
            [str(python), str(PEERS / "art_hop_skip_jump.py"), str(saved), str(samples), str(CAP), json.dumps(settings)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"ART failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    found = {}
    for result in answer["results"]:
        name = "init_eval={init_eval}".format(**result["setting"])
        distances, closest, rows = (np.array(result[key]) for key in ("returned", "closest", "rows"))
        found[name] = Result(distances, closest, rows, result["calls"], result["seconds"], result["bare"])
    return answer["version"], found


def peer_python(peer: str) -> Path:
    """The interpreter of the peer's environment, which is made if it is missing."""
    folder = PEERS / f".env-{peer}"
    python, made = folder / "bin" / "python", folder / ".made"
    if not made.exists():
        print(f"making {folder.name} for {peer} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(PEERS / f"{peer}.txt")], check=True)
        made.touch()
    return python


def show(ours: dict[int, Result], peers: dict[str, Result], peer_version: str) -> None:
    """The table."""
    print(f"\n{'':30}{'median L2':>10}{'closest':>9}{'queries':>9}{'calls':>8}{'CPU s':>8}{'ratio':>7}")
    named = {f"Holdfast, batches of {batch}": result for batch, result in ours.items()}
    named |= {f"ART {peer_version}, {name}": result for name, result in peers.items()}
    for name, found in named.items():
        closest, ratio = float(np.median(found.closest)), found.seconds / found.bare
        print(f"{name:30}{found.median:10.3f}{closest:9.3f}{found.rows.max():9}{found.calls:8}{found.seconds:8.1f}{ratio:7.1f}")
    print(f"{'limit':30}{'':10}{'':9}{CAP:9}{'':8}{'':8}{1.0:7.1f}")


if __name__ == "__main__":
    sys.exit(main())
