"""An independent computation of IBP and CROWN: explicit matrices in NumPy, one sample at a time, straight from the papers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize

Pieces = list[tuple[np.ndarray, np.ndarray] | None]
"""Weight and bias of each affine stretch, None for a rectifier between two."""


def pieces(network: torch.nn.Sequential, shape: tuple[int, ...]) -> Pieces:
    """The network's layers as dense matrices, found by asking them about unit vectors."""
    found: Pieces = []
    sizes = shape
    for layer in copy.deepcopy(network).double().eval():
        if isinstance(layer, torch.nn.ReLU):
            found.append(None)
            continue
        features = int(np.prod(sizes))
        with torch.no_grad():
            zero = layer(torch.zeros(1, *sizes, dtype=torch.float64))
            units = layer(torch.eye(features, dtype=torch.float64).reshape(features, *sizes))
        bias = zero.flatten().numpy()
        found.append((units.flatten(1).numpy().T - bias[:, None], bias))
        sizes = tuple(zero.shape[1:])
    return found


def box(x: np.ndarray, radius: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(x - radius, low), np.minimum(x + radius, high)


def least_linf(row: np.ndarray, x: np.ndarray, radius: float, low: float, high: float) -> float:
    ends = box(x, radius, low, high)
    return float(sum(min(a * u, a * v) for a, u, v in zip(row, *ends, strict=True)))


def least_l2(row: np.ndarray, x: np.ndarray, radius: float, low: float, high: float) -> float:
    """By a general solver, from several starts."""
    bounds = list(zip(*box(x, radius, low, high), strict=True))
    inside = {"type": "ineq", "fun": lambda z: radius**2 - ((z - x) ** 2).sum(), "jac": lambda z: -2 * (z - x)}
    start = x - 0.5 * radius * row / max(np.linalg.norm(row), 1e-12)
    start = np.clip(start, *np.array(bounds).T)
    best = minimize(
        lambda z: row @ z,
        start,
        jac=lambda _: row,
        bounds=bounds,
        constraints=[inside],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return float(best.fun)


Least = Callable[[np.ndarray, np.ndarray, float, float, float], float]


def ibp(parts: Pieces, ends: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Intervals after every piece."""
    low, high = ends
    found = []
    for part in parts:
        if part is None:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        else:
            weight, bias = part
            up, down = np.maximum(weight, 0), np.minimum(weight, 0)
            low, high = up @ low + down @ high + bias, up @ high + down @ low + bias
        found.append((low, high))
    return found


def crown(parts: Pieces, x: np.ndarray, radius: float, low: float, high: float, rows: np.ndarray, least: Least) -> np.ndarray:
    """Lower bounds of rows @ logits; intermediate bounds are CROWN's or the interval ones, whichever are tighter."""
    intervals: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    ends = box(x, radius, low, high)

    def back(matrix: np.ndarray, index: int) -> np.ndarray:
        matrix, constant = matrix.copy(), np.zeros(len(matrix))
        for at in range(index, -1, -1):
            part = parts[at]
            if part is not None:
                constant = constant + matrix @ part[1]
                matrix = matrix @ part[0]
                continue
            under, upper, shift = [], [], []
            for a, b in zip(*intervals[at - 1], strict=True):
                if a >= 0:
                    under.append(1.0), upper.append(1.0), shift.append(0.0)
                elif b <= 0:
                    under.append(0.0), upper.append(0.0), shift.append(0.0)
                else:
                    under.append(1.0 if b > -a else 0.0), upper.append(b / (b - a)), shift.append(-a * b / (b - a))
            positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
            constant = constant + negative @ np.array(shift)
            matrix = positive * np.array(under) + negative * np.array(upper)
        return np.array([least(row, x, radius, low, high) for row in matrix]) + constant

    now = ends
    for index, part in enumerate(parts[:-1]):
        if part is None:
            now = (np.maximum(now[0], 0), np.maximum(now[1], 0))
            continue
        (now,) = ibp([part], now)
        if parts[index + 1] is not None:
            continue
        eye = np.eye(len(now[0]))
        open_ = (now[0] < 0) & (now[1] > 0)
        tighter = now[0].copy(), now[1].copy()
        if open_.any():
            tighter[0][open_] = np.maximum(now[0][open_], back(eye[open_], index))
            tighter[1][open_] = np.minimum(now[1][open_], -back(-eye[open_], index))
        now = intervals[index] = tighter
    return back(rows, len(parts) - 1)
