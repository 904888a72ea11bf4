"""What one library reports as robust accuracy of masked and honest networks, in an environment of its own.

Called with the library's name, the networks' weights, the samples and the radius; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from masks import HONEST, MASKS, model, network

STEPS = 40


def foolbox_attack(net: Any, x: Any, y: Any, radius: float) -> Any:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    attack = LinfPGD(rel_stepsize=2.5 / STEPS, steps=STEPS, random_start=True)
    return attack(PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=radius)[1]


def art_attack(net: Any, x: Any, y: Any, radius: float) -> Any:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescent(
        wrapped, eps=radius, eps_step=2.5 * radius / STEPS, max_iter=STEPS, num_random_init=1, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(np.asarray(attack.generate(x.numpy(), y.numpy()), dtype=np.float32))


def autoattack_attack(net: Any, x: Any, y: Any, radius: float) -> Any:
    from pyautoattack import AutoAttack

    attack = AutoAttack(net, norm="Linf", eps=radius, version="standard", device="cpu", seed=0)
    found = attack.run_standard_evaluation(x, y, batch_size=len(x))
    return found[0] if isinstance(found, tuple) else found


ATTACKS = {
    "foolbox": (foolbox_attack, "foolbox"),
    "art": (art_attack, "adversarial-robustness-toolbox"),
    "autoattack": (autoattack_attack, "pyautoattack"),
}


def main() -> None:
    library, weights, samples, radius = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
    torch.set_num_threads(1)
    nets = {kind: network(kind).eval() for kind in HONEST}
    for kind, state in torch.load(weights, weights_only=True).items():
        nets[kind].load_state_dict(state)
    loaded = np.load(samples)
    x, y = torch.from_numpy(loaded["x"]), torch.from_numpy(loaded["y"])
    attack, package = ATTACKS[library]
    found: dict[str, Any] = {}
    for name in [*MASKS, *HONEST]:
        torch.manual_seed(0)
        net = model(name, nets).eval()
        started = time.process_time()
        try:
            rows = attack(net, x, y, radius)
            with torch.no_grad():
                robust = float((net(rows).argmax(1) == y).float().mean())
            found[name] = {"robust": robust, "seconds": time.process_time() - started}
        except Exception as error:
            found[name] = {"error": type(error).__name__, "seconds": time.process_time() - started}
    print(json.dumps({"version": version(package), "found": found}))


if __name__ == "__main__":
    main()
