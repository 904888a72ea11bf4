"""Arrays of NumPy and torch alike: to plain numbers, back into another array's kind, and copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

Array = Any
"""A NumPy array or a torch tensor; attacks reach both through array-api-compat."""


def as_numpy(x: Array) -> NDArray[np.float64]:
    """x as float64 NumPy, off the graph and off the device."""
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x, dtype=np.float64)


def as_like(x: Array, value: Any) -> Array:
    """`value` as an array of x's library, type and device."""
    xp = array_namespace(x)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    device = {"device": x.device} if hasattr(x, "detach") else {}
    return xp.asarray(value, dtype=x.dtype, **device)


def copied(x: Array) -> Array:
    """A copy off the graph, which neither sees later changes of x nor keeps the rest of its batch alive."""
    return x.detach().clone() if hasattr(x, "detach") else np.array(x)
