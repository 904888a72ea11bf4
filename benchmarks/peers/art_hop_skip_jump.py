"""ART's HopSkipJump on a given network, in an environment of its own; run by `benchmarks.label_only`.

A counter outside ART sees every row. ART runs one iteration after another, in the way it documents (`resume`), and what it
returns after the last iteration that ends within the cap counts; the rows that resuming asks again are not charged. Beside it
stands the closest misclassified row that ART asked about within the cap, which ART itself does not return.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from importlib.metadata import version

import numpy as np
import torch
from art.attacks.evasion import HopSkipJump
from art.estimators.classification import PyTorchClassifier


class CapReached(Exception):
    """The sample has used its queries."""


class Counted(torch.nn.Module):
    """The network behind a counter, with the cast that ART's HopSkipJump needs under NumPy 2."""

    def __init__(self, network: torch.nn.Module, cap: int) -> None:
        super().__init__()
        self.network, self.cap = network, cap
        self.batches: list[int] = []
        self.counting = False

    def begin(self, x: torch.Tensor, label: int) -> None:
        self.x, self.label, self.rows, self.best, self.counting = x, label, 0, float("inf"), True
        self.free = x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        answer = self.network(x)
        if not self.counting or (len(x) == 1 and (torch.equal(x[0], self.x) or torch.equal(x[0], self.free))):
            return answer
        self.batches.append(len(x))
        within = min(len(x), self.cap - self.rows)
        wrong = answer[:within].argmax(dim=1) != self.label
        if wrong.any():
            self.best = min(self.best, float((x[:within][wrong] - self.x).flatten(1).norm(dim=1).min()))
        self.rows += len(x)
        if self.rows > self.cap:
            raise CapReached
        return answer


def main(network_file: str, samples_file: str, cap: str, settings: str) -> None:
    """Print, as JSON, what each setting found."""
    torch.set_num_threads(1)
    network = torch.jit.load(network_file).eval()
    data = np.load(samples_file)
    x, y = data["x"], data["y"]
    counted = Counted(network, int(cap))
    shape, loss = x.shape[1:], torch.nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(
        counted, loss=loss, input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    results = []
    for setting in json.loads(settings):
        np.random.seed(0)  # noqa: NPY002
        attack = HopSkipJump(classifier, norm=2, verbose=False, batch_size=256, max_iter=1, **setting)
        returned, closest, rows = [], [], []
        counted.batches = []
        started = time.process_time()
        for row, label in zip(x, y, strict=True):
            counted.begin(torch.as_tensor(row), int(label))
            found, used = row[None], 0
            with suppress(CapReached):
                found = attack.generate(row[None])
                while np.abs(found - row).max() > 0:
                    used, counted.free = counted.rows, torch.as_tensor(found[0])
                    found = attack.generate(row[None], x_adv_init=found, resume=True)
            distance = float(np.linalg.norm(found - row))
            with torch.no_grad():
                evades = int(network(torch.as_tensor(found)).argmax()) != int(label)
            returned.append(distance if evades else float("inf"))
            closest.append(counted.best)
            rows.append(used)
        seconds = time.process_time() - started
        counted.counting = False
        started = time.process_time()
        with torch.no_grad():
            for size in counted.batches:
                network(torch.as_tensor(np.repeat(x[:1], size, axis=0)))
        bare = time.process_time() - started
        result = {"setting": setting, "returned": returned, "closest": closest, "rows": rows, "calls": len(counted.batches)}
        results.append(result | {"seconds": seconds, "bare": bare})
    print(json.dumps({"version": version("adversarial-robustness-toolbox"), "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
