"""Foolbox's HopSkipJump on a given network, in an environment of its own; run by `benchmarks.label_only`.

A counter outside Foolbox sees every row. What Foolbox holds after its last step that ends within the cap counts, as if it had
been told to stop there. Beside it stands the closest misclassified row that it asked about within the cap, which Foolbox
itself does not return.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from importlib.metadata import version

import eagerpy
import numpy as np
import torch
from foolbox import PyTorchModel
from foolbox.attacks import HopSkipJumpAttack


class CapReached(Exception):
    """The samples have used their queries."""


class Counted(torch.nn.Module):
    """The network behind a counter; each call asks about each sample of the batch once."""

    def __init__(self, network: torch.nn.Module, cap: int) -> None:
        super().__init__()
        self.network, self.cap = network, cap
        self.batches: list[int] = []

    def begin(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y, self.rows = x, y, 0
        self.closest = torch.full((len(x),), float("inf"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rows == self.cap:
            raise CapReached
        self.rows += 1
        self.batches.append(len(x))
        answer = self.network(x)
        distance = (x - self.x).flatten(1).norm(dim=1)
        self.closest = torch.where(answer.argmax(dim=1) != self.y, torch.minimum(self.closest, distance), self.closest)
        return answer


class Watched(HopSkipJumpAttack):
    """Foolbox's attack, whose every step ends with its own search of the boundary."""

    def begin(self, counted: Counted) -> None:
        self.counted, self.found, self.used = counted, None, 0

    def _binary_search(self, *arguments: object) -> eagerpy.Tensor:
        found = super()._binary_search(*arguments)
        self.found, self.used = found.raw, self.counted.rows
        return found


def main(network_file: str, samples_file: str, cap: str, settings: str) -> None:
    """Print, as JSON, what each setting found."""
    torch.set_num_threads(1)
    network = torch.jit.load(network_file).eval()
    data = np.load(samples_file)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    counted = Counted(network, int(cap)).eval()
    model = PyTorchModel(counted, bounds=(0, 1), device="cpu")
    results = []
    for setting in json.loads(settings):
        torch.manual_seed(0)
        attack = Watched(initial_gradient_eval_steps=setting["initial"])
        returned, closest, rows = [], [], []
        counted.batches = []
        started = time.process_time()
        for part, labels in zip(x.split(setting["batch"]), y.split(setting["batch"]), strict=True):
            counted.begin(part, labels)
            attack.begin(counted)
            with suppress(CapReached, ValueError), torch.no_grad():
                attack.run(model, part, labels)
            found = part if attack.found is None else attack.found
            with torch.no_grad():
                evades = network(found).argmax(dim=1) != labels
            returned += torch.where(evades, (found - part).flatten(1).norm(dim=1), float("inf")).tolist()
            closest += counted.closest.tolist()
            rows += [attack.used] * len(part)
        seconds = time.process_time() - started
        started = time.process_time()
        with torch.no_grad():
            for size in counted.batches:
                network(x[:1].repeat(size, *[1] * (x.ndim - 1)))
        bare = time.process_time() - started
        result = {"setting": setting, "returned": returned, "closest": closest, "rows": rows, "calls": len(counted.batches)}
        results.append(result | {"seconds": seconds, "bare": bare})
    print(json.dumps({"version": version("foolbox"), "results": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
