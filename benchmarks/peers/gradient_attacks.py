"""White-box attacks of one library on a given network, in an environment of its own; driven by `benchmarks.white_box`.

Called with the library's name, the network's weights and the samples. Then, for each line of JSON on its input, it runs one
attack and answers with a line of JSON: CPU seconds, the rows passed forward and those with a gradient as a counter in front of
the network sees them, and the CPU seconds of the bare forward passes and input gradients of the same batches.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Run = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor, dict[str, Any]], Any]


def network() -> torch.nn.Module:
    """The network, untrained."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(1568, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    )


class Counted(torch.nn.Module):
    """The network behind a counter of batches: how many rows, and whether their gradient was asked for."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.batches: list[tuple[int, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append((len(x), x.requires_grad and torch.is_grad_enabled()))
        return self.inner(x)


def bare(inner: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, batches: list[tuple[int, bool]]) -> float:
    """CPU seconds of the model calls alone: forward passes, and the gradients of the cross-entropy in the inputs."""
    inputs = {rows: x[torch.arange(rows) % len(x)] for rows in {rows for rows, _ in batches}}
    labels = {rows: y[torch.arange(rows) % len(y)] for rows in inputs}
    started = time.process_time()
    for rows, graded in batches:
        if graded:
            leaf = inputs[rows].requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(inner(leaf), labels[rows], reduction="sum")
            torch.autograd.grad(loss, leaf)
        else:
            with torch.no_grad():
                inner(inputs[rows])
    return time.process_time() - started


def foolbox_attack(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, setting: dict[str, Any]) -> torch.Tensor:
    """PGD; Foolbox has no Auto-PGD."""
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = LinfPGD(rel_stepsize=setting["step"], steps=setting["steps"], random_start=True)
    torch.manual_seed(setting["seed"])
    found: torch.Tensor = attack(wrapped, x, y, epsilons=setting["radius"])[1]
    return found


def art_attack(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, setting: dict[str, Any]) -> Any:
    """PGD or Auto-PGD, all samples in one batch."""
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=x.shape[1:],
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    np.random.seed(setting["seed"])  # noqa: NPY002
    common = {"eps": setting["radius"], "max_iter": setting["steps"], "batch_size": len(x), "verbose": False}
    attack: Any
    if setting["attack"] == "pgd":
        attack = ProjectedGradientDescent(wrapped, eps_step=setting["radius"] * setting["step"], num_random_init=1, **common)
    else:
        loss = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}[setting["loss"]]
        step = 2 * setting["radius"]
        attack = AutoProjectedGradientDescent(wrapped, eps_step=step, nb_random_init=1, loss_type=loss, **common)
    return attack.generate(x.numpy(), y.numpy())


def autoattack_attack(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, setting: dict[str, Any]) -> Any:
    """The authors' own Auto-PGD on the samples that the network gets right, from the given starts."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(
        model,
        n_iter=setting["steps"],
        norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[setting["norm"]],
        n_restarts=1,
        eps=setting["radius"],
        seed=setting["seed"],
        loss=setting["loss"],
        device="cpu",
    )
    attack.init_hyperparam(x)
    with torch.no_grad():
        right = model(x).argmax(dim=1) == y
    start = torch.from_numpy(np.load(setting["starts"]))
    found = x.clone()
    found[right] = attack.attack_single_run(x[right], y[right], x_init=start[right])[3]
    return found


ATTACKS: dict[str, tuple[str, Run]] = {
    "foolbox": ("foolbox", foolbox_attack),
    "art": ("adversarial-robustness-toolbox", art_attack),
    "autoattack": ("pyautoattack", autoattack_attack),
}


def main(peer: str, weights: str, samples: str) -> None:
    """Answer until the input ends."""
    from importlib.metadata import version

    torch.set_num_threads(1)
    inner = network()
    inner.load_state_dict(torch.load(weights, weights_only=True))
    inner.eval()
    model = Counted(inner).eval()
    data = np.load(samples)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    package, attack = ATTACKS[peer]
    print(json.dumps({"version": version(package)}), flush=True)
    for line in sys.stdin:
        setting = json.loads(line)
        model.batches = []
        started = time.process_time()
        found = attack(model, x.clone(), y.clone(), setting)
        seconds = time.process_time() - started
        littered = any(parameter.grad is not None for parameter in inner.parameters())
        inner.zero_grad(set_to_none=True)
        np.save(setting["out"], found.detach().numpy() if hasattr(found, "detach") else found)
        graded = sum(rows for rows, with_gradient in model.batches if with_gradient)
        answer = {"seconds": seconds, "forward": sum(rows for rows, _ in model.batches), "backward": graded}
        answer |= {"bare": bare(inner, x, y, model.batches), "littered": littered}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
