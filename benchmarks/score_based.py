"""What 1,000 queries a sample cost the Square attack, beside the bare model calls and the Square attacks of three peers.

Two naturally trained networks, on scikit-learn's digits and on MNIST (`--data`), 64 samples each that the network gets right,
linf. Peers run in environments of their own and are told 1,000 iterations, which their parameters call queries; a counter outside
sees what they ask. A sample that no attack breaks is asked about once in each of a peer's calls, so calls are its queries. CPU
ratio: CPU time over that of the bare forward passes of the same batches, each the best of five (of two for peers), whose limit
is 1. Natural evolution by estimated gradients is shown beside it, at the same cap.
"""

from __future__ import annotations

import argparse
import json
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

from benchmarks.label_only import PEERS, bare, digits_network, fingerprint, peer_python
from benchmarks.recording import Recorder
from benchmarks.white_box import trained
from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.natural_evolution import NaturalEvolution
from holdfast.attacks.evasion.square import Square
from holdfast.core.domain import Ball
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

CLAIM = "evasion-3"
CAP, SAMPLES, RADIUS = 1000, 64, 0.1
RUNS, PEER_RUNS = 5, 2
OTHERS = ("autoattack", "torchattacks", "art")
ALONE = 8
"""Samples that are attacked one by one, where the outside counter can tell what each is asked."""


class Counted:
    """A model behind a counter that stands outside the attack."""

    def __init__(self, model: TorchModel) -> None:
        self.model, self.access = model, model.access
        self.batches: list[int] = []
        self.judged = 0

    def labels(self, x: Any) -> NDArray[np.int64]:
        """The evaluator's own questions: no attack here asks for labels."""
        self.batches.append(len(x))
        self.judged += len(x)
        return self.model.labels(x)

    def scores(self, x: Any) -> Any:
        self.batches.append(len(x))
        return self.model.scores(x)

    def value_and_gradient(self, _: Any, __: Any) -> Any:
        raise AssertionError("an attack by scores asked for gradients")


@dataclass(frozen=True)
class Result:
    """What an attack left and what it cost.

    Attributes:
        standing: samples that the network still gets right.
        most: queries of the sample that was asked about most.
        calls, rows, seconds, bare: model calls, their rows, CPU seconds, and those of the bare forward passes.
    """

    standing: int
    most: int
    calls: int
    rows: int
    seconds: float
    bare: float

    @property
    def ratio(self) -> float:
        """CPU time over that of the bare calls."""
        return self.seconds / self.bare


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("HOLDFAST_DATA")
    parser.add_argument("--data", type=Path, default=data, help="the folder with MNIST's test files, mnist-t10k-*.gz")
    parser.add_argument("--quick", action="store_true", help="digits only, without peers")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    record = Recorder("score_based", ("numpy", "torch", "scikit-learn"))
    with threadpool_limits(1):
        networks = {"digits": digits_network(SAMPLES, 0)}
        if not options.quick:
            if options.data is None:
                raise SystemExit("give --data, the folder with MNIST's test files")
            networks["MNIST"] = chosen(*trained("natural", options.data))
        for name, (network, x, y) in networks.items():
            measure(record, name, network, x, y, () if options.quick else OTHERS)
    return record.write()


def chosen(network: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[Any, NDArray[np.float32], NDArray[np.int64]]:
    """The first samples that the network gets right."""
    import torch

    with torch.no_grad():
        right = np.flatnonzero(network(torch.from_numpy(x)).argmax(dim=1).numpy() == y)[:SAMPLES]
    return network, np.ascontiguousarray(x[right]), y[right]


def measure(
    record: Recorder, name: str, network: Any, x: NDArray[np.float32], y: NDArray[np.int64], peers: tuple[str, ...]
) -> None:
    """All attacks on one network: the table, and the checks."""
    network.eval()
    before = fingerprint(network, x)
    ours, counted = attack(Square(), network, x, y)
    evolution, _ = attack(NaturalEvolution(), network, x, y)
    untouched = fingerprint(network, x) == before
    results = {"Holdfast, Square": ours, "Holdfast, natural evolution": evolution}
    results |= {f"{peer}, Square": run_peer(peer, network, x, y) for peer in peers}
    print(f"\n{name + f', linf {RADIUS:g}':30}{'standing':>9}{'queries':>9}{'calls':>7}{'rows':>8}{'CPU s':>8}{'ratio':>7}")
    for title, found in results.items():
        print(f"{title:30}{found.standing:9}{found.most:9}{found.calls:7}{found.rows:8}{found.seconds:8.2f}{found.ratio:7.2f}")
    print(f"{'limit':30}{'':9}{CAP:9}{'':7}{'':8}{'':8}{1.5:7.2f}", flush=True)
    record.holds(CLAIM, f"{name}: weights, param.grad, training mode, random state and inputs are as before", untouched)
    record.holds(CLAIM, f"{name}: the outside counter saw the rows that the ledger charged, and no others", counted)
    record.at_most(CLAIM, f"{name}: most queries of one sample, by the ledger", ours.most, CAP)
    record.at_most(
        CLAIM, f"{name}: most queries of one sample, attacked one by one, by the outside counter", alone(network, x, y), CAP
    )
    record.at_most(CLAIM, f"{name}: CPU time over that of the bare calls", ours.ratio, 1.5)
    record.at_most(CLAIM, f"{name}: most queries of one sample of natural evolution, by the ledger", evolution.most, CAP)
    if peers:
        best = min(results[f"{peer}, Square"].standing for peer in peers)
        record.at_most(CLAIM, f"{name}: samples left standing beyond those of the best peer", ours.standing - best, 2)


def attack(how: Attack, network: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[Result, bool]:
    """An attack of ours on all samples at once, and whether its ledger agrees with the outside counter."""
    ball, seconds, floor = Ball(norm="linf", radius=RADIUS), [], []
    for _ in range(RUNS):
        counted = watched(network, x)
        started = time.process_time()
        outcome = how.run(counted, x, y, ball, seed=0, budget=CAP)
        seconds.append(time.process_time() - started)
        floor.append(bare(network, x, counted.batches))
    rows = sum(counted.batches) - counted.judged
    standing, most = int((outcome.correct & ~outcome.success).sum()), int(outcome.cost.queries.max())
    result = Result(standing, most, outcome.cost.calls, rows, min(seconds), min(floor))
    return result, rows == int(outcome.cost.queries.sum())


def alone(network: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> int:
    """The most rows that the outside counter saw asked about one sample."""
    most = 0
    for at in range(ALONE):
        counted = watched(network, x)
        Square().run(counted, x[at : at + 1], y[at : at + 1], Ball(norm="linf", radius=RADIUS), seed=0, budget=CAP, units=[at])
        most = max(most, sum(counted.batches) - counted.judged)
    return most


def watched(network: Any, x: NDArray[np.float32]) -> Counted:
    """The network behind a counter."""
    return Counted(TorchModel(network, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True)))


def run_peer(peer: str, network: Any, x: NDArray[np.float32], y: NDArray[np.int64]) -> Result:
    """The peer's Square attack."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        saved, samples = Path(folder) / "network.pt", Path(folder) / "samples.npz"
        torch.jit.trace(network, torch.from_numpy(x[:2])).save(str(saved))
        np.savez(samples, x=x, y=y)
        script = [str(peer_python(peer)), str(PEERS / "square_search.py"), peer, str(saved), str(samples)]
        done = subprocess.run(
            [*script, str(RADIUS), str(CAP), str(PEER_RUNS)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if not answer["within"]:
        raise SystemExit(f"{peer} left the ball or the box")
    print(f"{peer} {answer['version']}", flush=True)
    cost = {key: answer[key] for key in ("calls", "rows", "seconds", "bare")}
    return Result(standing=answer["standing"], most=answer["calls"], **cost)


if __name__ == "__main__":
    sys.exit(main())
