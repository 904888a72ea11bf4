"""How close the label-only attack comes with 1,000 queries a sample, beside ART's and Foolbox's HopSkipJump on the same samples.

A small convolutional network on scikit-learn's digits, trained from each of three seeds; 64 samples that it gets right; L2; the
same cap for all, held against counters that stand outside the attacks; random starts for all. The peers run in environments of
their own, in several settings, of which the best on each network counts; Foolbox both with all samples in one batch and one by
one. The ratio is the median over the networks, and each network's is in the table, with its digest, so that a rerun shows whether
it met the same networks. What counts is what each returns. The peers return the point after their last step; the closest
misclassified row that they asked about on their way is shown beside it, and ART's held against ours too. CPU ratio: CPU time over
that of the bare forward passes of the same batches, whose limit is 1; ours is the best of five runs over the best of five.
"""

from __future__ import annotations

import argparse
import hashlib
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
from threadpoolctl import threadpool_limits

from benchmarks.recording import Recorder
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.core.domain import Ball
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

CLAIM, AGAIN = "loop-7", "evasion-2"
CAP = 1000
SAMPLES = 64
SEEDS = (0, 1, 2)
THREADS = 1
BATCHES = (1, 7, 64)
PEERS = Path(__file__).parent / "peers"
BEST_OF = 5
FOOLBOX = tuple({"initial": count, "batch": batch} for batch in (1, SAMPLES) for count in (25, 50, 100))
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


@dataclass(frozen=True)
class Duel:
    """All attacks on one network.

    Attributes:
        seed, digest: of the network.
        ours: by batch size.
        peers: by ART's setting.
        foolbox: by Foolbox's setting, its batch size first.
        versions: ART's and Foolbox's.
        untouched: the network and the inputs were left as they were.
        cpu: CPU time of our attack on all samples over that of the bare calls, each the best of several.
    """

    seed: int
    digest: str
    ours: dict[int, Result]
    peers: dict[str, Result]
    foolbox: dict[str, Result]
    versions: tuple[str, str]
    untouched: bool
    cpu: float

    @property
    def best(self) -> str:
        """ART's best setting by what it returned."""
        return min(self.peers, key=lambda name: self.peers[name].median)

    @property
    def ratio(self) -> float:
        """Our median distance over that of ART's best setting."""
        return self.ours[max(BATCHES)].median / self.peers[self.best].median

    def over_foolbox(self, batch: int) -> float:
        """Our median distance over that of Foolbox's best setting in batches of that size."""
        found = [result.median for name, result in self.foolbox.items() if name.startswith(f"batches of {batch},")]
        return self.ours[max(BATCHES)].median / min(found)

    @property
    def credited(self) -> float:
        """The same, had ART returned the closest misclassified row that it asked about."""
        return self.ours[max(BATCHES)].median / min(float(np.median(result.closest)) for result in self.peers.values())


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="not needed: the data come with scikit-learn")
    parser.add_argument("--quick", action="store_true", help="16 samples and one setting of each peer")
    options = parser.parse_args(argv)
    samples, settings = (16, SETTINGS[1:2]) if options.quick else (SAMPLES, SETTINGS)
    foolbox = tuple(FOOLBOX[at] for at in (1, 4)) if options.quick else FOOLBOX
    import torch

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    with threadpool_limits(THREADS):
        duels = [duel(seed, samples, settings, foolbox) for seed in SEEDS]
    show(duels)
    record = Recorder("label_only", ("numpy", "torch", "scikit-learn"))
    ours = [result for met in duels for result in met.ours.values()]
    untouched = all(met.untouched for met in duels)
    record.holds(CLAIM, "weights, param.grad, training mode, random state and inputs are as before", untouched)
    record.holds(CLAIM, "every sample has an example", all(np.isfinite(result.distances).all() for result in ours))
    outside = max(float(met.ours[1].rows.max()) for met in duels)
    record.at_most(CLAIM, "most queries of one sample, by the outside counter", outside, CAP)
    asked = max(float(result.rows.max()) for result in ours)
    record.at_most(CLAIM, "most queries of one sample, by the ledger, in all batches", asked, CAP)
    spread = max(max(r.median for r in met.ours.values()) / min(r.median for r in met.ours.values()) for met in duels)
    record.at_most(CLAIM, "largest over smallest median L2 of batches of 1, 7 and 64", spread, 1.02)
    ratio, credited = (float(np.median([getattr(met, name) for met in duels])) for name in ("ratio", "credited"))
    over = f"median over {len(SEEDS)} networks"
    record.at_most(CLAIM, f"median L2 over that of ART's best setting at an equal cap, {over}", ratio, 0.85)
    record.at_most(CLAIM, f"the same, if ART returned the closest row it asked about, {over}", credited, 1.0)
    peers = max(float(met.peers[met.best].rows.max()) for met in duels)
    record.at_most(CLAIM, "most queries credited to ART for one sample", peers, CAP)
    calls = max(float(met.ours[max(BATCHES)].calls) for met in duels)
    record.at_most(AGAIN, "model calls for all samples at once", calls, 130)
    record.at_most(AGAIN, f"CPU time over that of the bare calls, {over}", float(np.median([met.cpu for met in duels])), 1.5)
    together, alone = (float(np.median([met.over_foolbox(batch) for met in duels])) for batch in (SAMPLES, 1))
    record.at_most(AGAIN, f"median L2 over that of Foolbox's best setting in one batch, {over}", together, 0.65)
    record.at_most(AGAIN, f"median L2 over that of Foolbox's best setting one by one, {over}", alone, 1.02)
    record.at_most(AGAIN, f"median L2 over that of ART's best setting from random starts, {over}", ratio, 0.8)
    peers = max(float(result.rows.max()) for met in duels for result in met.foolbox.values())
    record.at_most(AGAIN, "most queries credited to Foolbox for one sample", peers, CAP)
    return record.write()


def duel(seed: int, samples: int, settings: tuple[dict[str, int], ...], foolbox: tuple[dict[str, int], ...]) -> Duel:
    """Train the network of that seed and attack it with all."""
    network, x, y = digits_network(samples, seed)
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values())).hexdigest()[:12]
    network.train()
    before = fingerprint(network, x)
    ours = {batch: attack(network, x, y, batch) for batch in BATCHES}
    untouched = fingerprint(network, x) == before
    network.eval()
    cpu = cpu_ratio(network, x, y)
    art_version, art = run_peer("art", network, x, y, settings)
    foolbox_version, other = run_peer("foolbox", network, x, y, foolbox)
    return Duel(seed, digest, ours, art, other, (art_version, foolbox_version), untouched, cpu)


def digits_network(samples: int, seed: int) -> tuple[Any, NDArray[np.float32], NDArray[np.int64]]:
    """The network, and samples it was not trained on and gets right."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images[order] / 16).astype(np.float32)[:, None]
    y = digits.target[order].astype(np.int64)
    torch.manual_seed(seed)
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
    print(f"network {seed}: {right.mean():.1%} of {len(right)} held-out digits right", flush=True)
    chosen = 1300 + np.flatnonzero(right)[:samples]
    return network, x[chosen], y[chosen]


def attack(network: Any, x: NDArray[np.float32], y: NDArray[np.int64], batch: int) -> Result:
    """Our attack in batches of that size; the outside counter tells samples apart only in batches of one."""

    counted = Counted(TorchModel(network, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True)))
    ball = Ball(norm="l2", radius=math.inf, low=0.0, high=1.0)
    distances, rows, calls = [], [], 0
    started = time.process_time()
    for start in range(0, len(x), batch):
        part = np.arange(start, min(start + batch, len(x)))
        asked = len(counted.batches)
        outcome = HopSkipJump().run(counted, x[part], y[part], ball, seed=0, units=part, budget=CAP)
        distances += np.where(outcome.success, outcome.distance, np.inf).tolist()
        evaluator = 3 if outcome.success.all() else 4
        seen = sum(counted.batches[asked:])
        rows += outcome.cost.queries.tolist() if batch > 1 else [seen - evaluator]
        calls += outcome.cost.calls
    seconds = time.process_time() - started
    return Result(np.array(distances), np.array(distances), np.array(rows), calls, seconds, bare(network, x, counted.batches))


def bare(network: Any, x: NDArray[np.float32], sizes: list[int]) -> float:
    """CPU seconds of the network alone on batches of these sizes."""
    import torch

    batches = {size: torch.from_numpy(np.repeat(x[:1], size, axis=0)) for size in set(sizes)}
    training = network.training
    network.eval()
    started = time.process_time()
    with torch.no_grad():
        for size in sizes:
            network(batches[size])
    seconds = time.process_time() - started
    network.train(training)
    return seconds


def cpu_ratio(network: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """CPU time of our attack on all samples at once over that of the bare calls, the best of several runs of each."""
    runs = [attack(network, x, y, len(x)) for _ in range(BEST_OF)]
    return min(run.seconds for run in runs) / min(run.bare for run in runs)


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


def run_peer(
    peer: str, network: Any, x: NDArray[np.float32], y: NDArray[np.int64], settings: tuple[dict[str, int], ...]
) -> tuple[str, dict[str, Result]]:
    """The peer's version and what each of its settings found."""
    import torch

    python = peer_python(peer)
    with tempfile.TemporaryDirectory() as folder:
        saved, samples = Path(folder) / "network.pt", Path(folder) / "samples.npz"
        torch.jit.trace(network, torch.from_numpy(x[:2])).save(str(saved))
        np.savez(samples, x=x, y=y)
        done = subprocess.run(
            [str(python), str(PEERS / f"{peer}_hop_skip_jump.py"), str(saved), str(samples), str(CAP), json.dumps(settings)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    name = {"art": "init_eval={init_eval}", "foolbox": "batches of {batch}, initial={initial}"}[peer]
    found = {}
    for result in answer["results"]:
        distances, closest, rows = (np.array(result[key]) for key in ("returned", "closest", "rows"))
        found[name.format(**result["setting"])] = Result(
            distances, closest, rows, result["calls"], result["seconds"], result["bare"]
        )
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


def show(duels: list[Duel]) -> None:
    """The table."""
    print(f"\n{THREADS} thread; ART {duels[0].versions[0]}, Foolbox {duels[0].versions[1]}")
    for met in duels:
        title = f"network {met.seed}, {met.digest}"
        print(f"\n{title:38}{'median L2':>10}{'closest':>9}{'queries':>9}{'calls':>8}{'CPU s':>8}{'ratio':>7}")
        named = {f"Holdfast, batches of {batch}": result for batch, result in met.ours.items()}
        named |= {f"ART, {name}": result for name, result in met.peers.items()}
        named |= {f"Foolbox, {name}": result for name, result in met.foolbox.items()}
        for name, found in named.items():
            closest, times = float(np.median(found.closest)), found.seconds / found.bare
            print(
                f"{name:38}{found.median:10.3f}{closest:9.3f}{found.rows.max():9}{found.calls:8}{found.seconds:8.1f}{times:7.1f}"
            )
        print(f"{'limit':38}{'':10}{'':9}{CAP:9}{'':8}{'':8}{1.0:7.1f}")
    print(f"\n{'ours over':30}{'ART':>10}{'closest':>9}{'Foolbox, one batch':>20}{'one by one':>12}{'CPU':>8}")
    for met in duels:
        print(
            f"{f'network {met.seed}, {met.digest}':30}{met.ratio:10.4f}{met.credited:9.4f}"
            f"{met.over_foolbox(SAMPLES):20.4f}{met.over_foolbox(1):12.4f}{met.cpu:8.2f}"
        )
    print(f"{'limit of the median':30}{0.8:10.4f}{1.0:9.4f}{0.65:20.4f}{1.02:12.4f}{1.5:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
