"""Draws that lead a domain's `sample` to its corners, or anywhere inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGE = 1e-9
"""How close to 0 and 1 the draws lie that give corners; which of them is larger stays random, for one-hot groups."""


def corner_draws(uniform: NDArray[np.float64], inside: float = 0.0) -> NDArray[np.float64]:
    """Draws next to 0 or 1, and a share `inside` of them uniform in [0, 1), from uniform draws of the same shape.

    The low bits of each draw decide what its high bits do not, so that no further draws are needed.
    """
    ends = np.where(uniform < 0.5, EDGE * uniform, 1 - EDGE * uniform)
    return np.where(uniform * 2**20 % 1 < inside, uniform * 2**36 % 1, ends) if inside else ends
