"""Which measurement is worth making: the expected value of perfect information about P(success).

For each risk the owner either accepts it, and expects to lose B p a year, with p = P(success) and B = attempts x loss per
event, both at their means; or mitigates it for a price. Knowing nothing further, the owner pays min(E[B p], price); knowing p,
min(B p, price). The difference, never negative, is what knowing p is worth at most:

    min(E[B p], price) - E[min(B p, price)]

The price is the declared appetite: the owner pays for a control at most what the owner is ready to lose, so that a risk which
alone is expected to cost more is one to mitigate. Without an appetite it is the mean annual loss of a risk. Attempts and loss
are drawn independently of P(success), which makes B p the conditional expectation itself; nothing need be regressed.

Source: Strong, Oakley and Brennan (2014), "Estimating multiparameter partial expected value of perfect information", for the
quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.risk.losses import Floats
from holdfast.risk.register import NextProbe

LONGEST = 20


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is open about one risk.

    Attributes:
        threat, probe, actor: whose P(success), and what would measure it.
        at_stake: B, the mean annual loss if every attempt succeeded.
        probability: (n,) draws of P(success), averaged over the actor's capability.
        why: what is open about it.
    """

    threat: str
    probe: str | None
    actor: str
    at_stake: float
    probability: Floats
    why: str

    def worth(self, price: float) -> float:
        """The expected value of perfect information, in loss a year."""
        loss = self.at_stake * self.probability
        return max(0.0, min(float(loss.mean()), price) - float(np.minimum(loss, price).mean()))


def next_probes(questions: Sequence[Question], price: float) -> tuple[NextProbe, ...]:
    """The most valuable measurements first; one measurement answers the questions of all actors of its threat."""
    by_threat: dict[str, list[Question]] = {}
    for question in questions:
        by_threat.setdefault(question.threat, []).append(question)
    found = []
    for threat, asked in by_threat.items():
        worths = [question.worth(price) for question in asked]
        value, first = sum(worths), asked[int(np.argmax(worths))]
        if value > 1e-6 * price:
            found.append(NextProbe(threat=threat, probe=first.probe, actor=first.actor, value=value, why=first.why))
    return tuple(sorted(found, key=lambda probe: (-probe.value, probe.threat))[:LONGEST])
