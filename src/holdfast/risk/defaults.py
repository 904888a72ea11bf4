"""Every number that Holdfast assumes where nobody declared or measured it. A risk that rests on one of them says so.

Frequencies and losses below are wide guesses on purpose: they keep a missing declaration visible in the register instead of
hiding it, and they should be replaced in `holdfast.yaml`. `docs/how-risk-is-computed.md` lists them for readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from holdfast.threats.system import Range

ATTACKER = "unnamed attacker"
"""Who carries out a threat that no declared actor can."""

ORDINARY = "ordinary operation"
"""Who carries out what needs no attacker, such as drift; an actor declared with access `none` takes its place."""

ATTEMPTS: Mapping[str, Range] = {ATTACKER: Range(low=0.1, high=10), ORDINARY: Range(low=0.5, high=12)}
"""Attempts a year; occasions a year for ordinary operation. An actor without declared attempts gets the attacker's."""

LOSS_PER_EVENT = Range(low=1_000, high=1_000_000)
"""In the unit of the declared impacts, or in `UNIT`."""

UNIT = "EUR"

STRONGER_ATTACKS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "weak": ((0.000, 0.156), (0.0155, 0.156), (0.014, 0.437), (0.032, 0.161)),
    "moderate": ((0.97, 0.97), (0.75, 0.78), (0.97, 0.97), (0.59, 0.78)),
    "strong": ((0.417, 0.437), (0.415, 0.437), (0.0169, 0.0184), (0.287, 0.358), (0.247, 0.269)),
}
"""Success of a probe of each strength, and of a stronger attack on the same model and rows.

weak: membership by one threshold (ties refused, ties broken, the loss alone) or by few reference models, against LiRA.
moderate: Square and HopSkipJump with 1,000 queries against a white-box attack, on a plain and on a robust network.
strong: LiRA with pooled or per-record against shrunk variance; AutoAttack against an attack adapted to the defence.
"""


def gap_shape(strength: str) -> float:
    """The b of Beta(1, b), the prior of the share that a stronger attack wins of what the probe left; infinite when exact.

    Maximum likelihood from `STRONGER_ATTACKS`: b = -n / sum(log(1 - g)) with g = (stronger - probe) / (1 - probe). Four or
    five pairs say little, so the prior is wide: its mean is 1 / (1 + b).
    """
    if strength == "exact":
        return math.inf
    gaps = [(stronger - probe) / (1 - probe) for probe, stronger in STRONGER_ATTACKS[strength]]
    return -len(gaps) / sum(math.log1p(-gap) for gap in gaps)
