"""What PGD and Auto-PGD cost beside the model calls they make, and beside Foolbox, ART and the authors' own Auto-PGD.

Two convolutional networks of MNIST's test file, one trained as usual and one on adversarial inputs; 256 samples of the part that
was not trained on; linf. Every library gets the same weights, samples, radius, number of steps and, for PGD, step length, one
random start, one thread, and all samples in one batch, in an environment and process of its own. The authors' code gets our
starts, so that the comparison of robust accuracy is not one of luck; Foolbox and ART draw their own. The libraries take turns,
five rounds with other starts in each, of which the best time counts. What each returns is judged here, by the same network,
before any time is compared: inside the radius and the box, and which samples it leaves right.

Bare: the CPU time of the same forward passes and input gradients in the same batches, with nothing around them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.label_only import PEERS, fingerprint, peer_python
from benchmarks.recording import Recorder
from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.ascent import random_start
from holdfast.attacks.evasion.pgd import PGD
from holdfast.core.domain import Ball
from holdfast.core.seeds import SampleStreams
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

CLAIM = "evasion-1"
SAMPLES, TRAINED, ROUNDS = 256, 8000, 5
STEP = 2.5 / 40
OURS, FOOLBOX, ART, AUTHORS = "Holdfast", "foolbox", "art", "autoattack"
NETWORKS = {"natural": 0.1, "robust": 0.2}
"""The radius at which each network is attacked."""


@dataclass
class Contest:
    """One attack on one network by each library.

    Attributes:
        setting: what the peers are told.
        attack: ours.
        peers: who else runs it.
        right: by library, which samples it leaves right in each round.
        costs: by library, what each round cost.
    """

    setting: dict[str, Any]
    attack: Attack
    peers: tuple[str, ...]
    right: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)
    costs: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    @property
    def ball(self) -> Ball:
        """What may be changed."""
        return Ball(norm=self.setting["norm"], radius=self.setting["radius"])

    def best(self, name: str, key: str = "seconds") -> float:
        """The smallest of the rounds."""
        return min(cost[key] for cost in self.costs[name])

    def over_bare(self, name: str) -> float:
        """CPU time over that of the bare model calls."""
        return self.best(name) / self.best(name, "bare")

    def robust(self, name: str) -> float:
        """How many samples are left right, on average over the rounds."""
        return float(np.mean([right.sum() for right in self.right[name]]))

    def worst(self, name: str) -> int:
        """How many samples are left right in all rounds."""
        return int(np.logical_and.reduce(self.right[name]).sum())

    def apart(self, name: str) -> int:
        """The most samples by which a library's robust accuracy differs from ours in one round."""
        return max(abs(int(a.sum()) - int(b.sum())) for a, b in zip(self.right[OURS], self.right[name], strict=True))


class Counted:
    """Our model behind a counter that stands outside the attack."""

    def __init__(self, model: TorchModel) -> None:
        self.model, self.access = model, model.access
        self.batches: list[tuple[int, bool]] = []

    def labels(self, x: Any) -> NDArray[np.int64]:
        self.batches.append((len(x), False))
        return self.model.labels(x)

    def scores(self, x: Any) -> Any:
        self.batches.append((len(x), False))
        return self.model.scores(x)

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        self.batches.append((len(x), True))
        return self.model.value_and_gradient(x, loss)


def main(argv: list[str] | None = None) -> int:
    """Run, print and record; 1 when a check falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    folder = "the folder with MNIST's test files, mnist-t10k-*.gz"
    parser.add_argument("--data", type=Path, default=os.environ.get("HOLDFAST_DATA"), help=folder)
    parser.add_argument("--quick", action="store_true", help="one round on the natural network")
    options = parser.parse_args(argv)
    if options.data is None:
        print(f"--data is needed: {folder}", file=sys.stderr)
        return 1
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    record = Recorder("white_box", ("numpy", "torch"))
    with threadpool_limits(1):
        for name in list(NETWORKS)[: 1 if options.quick else None]:
            judge(record, name, Path(options.data), 1 if options.quick else ROUNDS)
    return record.write()


def judge(record: Recorder, name: str, data: Path, rounds: int) -> None:
    """All contests on one network."""
    network, x, y = trained(name, data)
    radius = NETWORKS[name]
    before = fingerprint(network, x)
    common = {"norm": "linf", "radius": radius, "step": STEP, "seed": 0}
    pgd = Contest({**common, "attack": "pgd", "steps": 40}, PGD(steps=40, step=STEP), (FOOLBOX, ART))
    apgd = {loss: _apgd(common, loss, (AUTHORS, ART) if loss == "ce" else (AUTHORS,)) for loss in ("ce", "dlr")}
    contests = {"PGD-40": pgd, "APGD-100 ce": apgd["ce"], "APGD-100 dlr": apgd["dlr"]}
    versions = compete(network, x, y, list(contests.values()), rounds)
    show(name, contests, versions)
    record.holds(
        CLAIM, f"{name}: weights, param.grad, training mode, random state and inputs are as before", _same(before, network, x)
    )
    for title, contest in contests.items():
        on = f"{name} network, {title}"
        if title != "PGD-40":
            check = "most samples between our robust accuracy and that of the authors' code from the same starts"
            record.at_most(CLAIM, f"{on}: {check}", contest.apart(AUTHORS), 1)
        else:
            more = contest.worst(OURS) - min(contest.worst(peer) for peer in contest.peers)
            record.at_most(CLAIM, f"{on}: samples that a peer breaks in some round beyond ours", more, 1)
        record.at_most(CLAIM, f"{on}: CPU over the bare model calls", contest.over_bare(OURS), 1.3)
        steps = contest.setting["steps"]
        most = max(cost["asked"] for cost in contest.costs[OURS])
        record.at_most(CLAIM, f"{on}: most forward passes of one sample, by the ledger", most, steps + 2)
        mean = max(cost["forward"] for cost in contest.costs[OURS]) / SAMPLES
        record.at_most(CLAIM, f"{on}: forward passes a sample, by the outside counter, verification included", mean, steps + 2)
        for peer, bound in ((FOOLBOX, 0.75), (ART, 0.65)):
            if peer in contest.peers:
                ratio = contest.best(OURS) / contest.best(peer)
                record.at_most(CLAIM, f"{on}: CPU over {peer}'s", ratio, bound)


def _apgd(common: dict[str, Any], loss: Any, peers: tuple[str, ...]) -> Contest:
    return Contest({**common, "attack": "apgd", "steps": 100, "loss": loss}, APGD(steps=100, losses=(loss,)), peers)


def _same(before: tuple[Any, ...], network: Any, x: NDArray[np.float32]) -> bool:
    return fingerprint(network, x) == before


def compete(network: Any, x: NDArray[np.float32], y: NDArray[np.int64], contests: list[Contest], rounds: int) -> dict[str, str]:
    """All rounds, the libraries in turn; returns the peers' versions."""
    import torch

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        torch.save(network.state_dict(), folder / "weights.pt")
        np.savez(folder / "samples.npz", x=x, y=y)
        peers = sorted({peer for contest in contests for peer in contest.peers})
        processes = {peer: stack.enter_context(peer_process(peer, folder)) for peer in peers}
        versions = {peer: json.loads(_answer(process))["version"] for peer, process in processes.items()}
        for seed in range(rounds):
            for contest in contests:
                contest.setting |= {"seed": seed, "starts": str(folder / "starts.npy")}
                np.save(folder / "starts.npy", starts(x, contest))
                found, cost = ours(network, x, y, contest)
                _note(contest, OURS, found, cost, network, x, y)
                for peer in contest.peers:
                    out = folder / "found.npy"
                    _ask(processes[peer], {**contest.setting, "out": str(out)})
                    cost = json.loads(_answer(processes[peer]))
                    _note(contest, peer, np.load(out), cost, network, x, y)
    return versions


def starts(x: NDArray[np.float32], contest: Contest) -> NDArray[np.float32]:
    """Where our attack starts."""
    import torch

    draws = SampleStreams(contest.setting["seed"], range(len(x))).uniform(np.arange(len(x)), x.shape[1:])
    found: NDArray[np.float32] = random_start(contest.ball, torch.from_numpy(x), draws).numpy()
    return found


@contextmanager
def peer_process(peer: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A peer that waits for settings."""
    process = subprocess.Popen(
        [
            str(peer_python(peer)),
            str(PEERS / "gradient_attacks.py"),
            peer,
            str(folder / "weights.pt"),
            str(folder / "samples.npz"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(timeout=60)


def _ask(process: subprocess.Popen[str], setting: dict[str, Any]) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(setting) + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> str:
    """The next line of JSON; libraries print other things too."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith("{"):
            return line
    raise SystemExit(f"a peer ended with {process.wait()}")


def ours(
    network: Any, x: NDArray[np.float32], y: NDArray[np.int64], contest: Contest
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Our attack: what it returns, and what it cost."""
    import torch

    from benchmarks.peers.gradient_attacks import bare

    model = Counted(TorchModel(network, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True)))
    inputs = torch.from_numpy(x)
    started = time.process_time()
    outcome = contest.attack.run(model, inputs, y, contest.ball, seed=contest.setting["seed"])
    seconds = time.process_time() - started
    forward = sum(rows for rows, _ in model.batches)
    cost = {"seconds": seconds, "forward": forward, "backward": outcome.cost.backward, "asked": int(outcome.cost.queries.max())}
    cost["bare"] = bare(network, inputs.clone(), torch.from_numpy(y), model.batches)
    return outcome.adversarial.numpy(), cost


def _note(
    contest: Contest,
    name: str,
    found: NDArray[np.float32],
    cost: dict[str, float],
    network: Any,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
) -> None:
    """Judge what was returned, and keep the cost; what leaves the ball or the box is an error of the benchmark."""
    import torch

    inside = contest.ball.contains(x, found.astype(np.float32))
    if not inside.all():
        raise SystemExit(f"{name} left the domain in {int((~inside).sum())} samples")
    with torch.no_grad():
        right = network(torch.from_numpy(found.astype(np.float32))).argmax(dim=1).numpy() == y
    contest.right.setdefault(name, []).append(right)
    contest.costs.setdefault(name, []).append(cost)


def trained(name: str, data: Path) -> tuple[Any, NDArray[np.float32], NDArray[np.int64]]:
    """The network, and samples that it was not trained on."""
    import torch

    from benchmarks.peers.gradient_attacks import network as untrained

    images = gzip.decompress((data / "mnist-t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((data / "mnist-t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    torch.manual_seed(0)
    network = untrained()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    inputs, targets = torch.from_numpy(x[:TRAINED]), torch.from_numpy(y[:TRAINED])
    for epoch in range(3 if name == "natural" else 8):
        for rows in torch.randperm(TRAINED).split(128):
            batch = inputs[rows]
            if name == "robust":
                batch = hardened(network, batch, targets[rows], NETWORKS[name] * min(1.0, (epoch + 1) / 4))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(batch), targets[rows]).backward()
            optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    network.eval()
    chosen = slice(TRAINED, TRAINED + SAMPLES)
    with torch.no_grad():
        right = float((network(torch.from_numpy(x[chosen])).argmax(dim=1).numpy() == y[chosen]).mean())
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values())).hexdigest()[:12]
    print(f"{name} network {digest}: {right:.1%} of {SAMPLES} samples right", flush=True)
    return network, x[chosen], y[chosen]


def hardened(network: Any, x: Any, y: Any, radius: float) -> Any:
    """The inputs after five steps up the loss."""
    import torch

    change = (2 * torch.rand_like(x) - 1) * radius
    for _ in range(5):
        point = (x + change).requires_grad_(True)
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(point), y), point)
        change = (x + change + radius / 2 * gradient.sign()).clamp(0, 1).sub(x).clamp(-radius, radius)
    return x + change


def show(name: str, contests: dict[str, Contest], versions: dict[str, str]) -> None:
    """The table."""
    rounds = len(contests["PGD-40"].costs[OURS])
    print(f"\n{name} network, linf {NETWORKS[name]:g}, 1 thread, best of {rounds}; {versions}")
    print(f"{'':28}{'left right':>11}{'forward':>9}{'backward':>9}{'CPU s':>8}{'bare s':>8}{'ratio':>7}{'grad left':>10}")
    for title, contest in contests.items():
        for library, costs in contest.costs.items():
            cost = costs[-1]
            littered = "yes" if cost.get("littered") else "no"
            print(
                f"{title + ', ' + library:28}{contest.robust(library):11.1f}{cost['forward'] / SAMPLES:9.1f}"
                f"{cost['backward'] / SAMPLES:9.1f}{contest.best(library):8.2f}{contest.best(library, 'bare'):8.2f}"
                f"{contest.over_bare(library):7.2f}{littered:>10}"
            )
        print(f"{title + ', limit':28}{'':11}{'':9}{'':9}{'':8}{'':8}{1.0:7.2f}")


if __name__ == "__main__":
    sys.exit(main())
