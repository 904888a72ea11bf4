"""What an attack on a target moves in: the attacked rows as arrays, the domain around them, and the way back to inputs.

Arrays and images move in a `Ball` inside the box of valid inputs, tables in a `Tabular`. What the user did not declare
has a default: a tenth of the data's range for arrays, half a standard deviation for tables, under linf; under another
norm, the radius that the corner of that cube has.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.domain import Ball, Domain, Norm
from holdfast.core.errors import Inconclusive, InvalidData, NotApplicable, Unmeasured
from holdfast.core.evidence import ChangedCell
from holdfast.core.seeds import derive
from holdfast.core.table import Table
from holdfast.core.tabular import Tabular
from holdfast.core.target import Dataset, Target
from holdfast.probes.footing import distinct, tied

ARRAY_RADIUS = 0.1
"""Default linf radius for arrays, as a share of the range of valid inputs."""
TABLE_RADIUS = 0.5
"""Default linf radius for tables, in standard deviations of each column."""
MOST_OWNED = 500
SHOWN_PIXELS = 64


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Rows under attack.

    Attributes:
        x: (n, ...) encoded originals.
        y: (n,) labels.
        domain: what may be changed.
        decode: from encoded rows to model inputs; None when they are the inputs.
        units: (n,) row ids.
        clusters: (n,) what correlated rows share, copies included; None when they are independent.
        owned, owned_labels: further rows that the attacker may start from, encoded, with their labels.
        budget: the domain in words.
    """

    x: NDArray[np.floating[Any]]
    y: NDArray[np.int64]
    domain: Domain
    decode: Callable[[Any], Any] | None
    units: NDArray[np.str_]
    clusters: NDArray[np.str_] | None
    owned: NDArray[np.floating[Any]] | None
    owned_labels: NDArray[np.int64] | None
    budget: str

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, x: Any) -> Any:
        """Encoded rows as the model takes them."""
        return x if self.decode is None else self.decode(x)

    @property
    def originals(self) -> Any:
        """The attacked rows and then the attacker's own, as the model takes them."""
        return self.inputs(self.x if self.owned is None else np.concatenate([self.x, self.owned]))

    def distinct(self, rows: NDArray[np.bool_]) -> int:
        """How many of the rows have inputs that no earlier one has."""
        return distinct(self.inputs(self.x[rows]))


def chosen_rows(holdout: Dataset, most: int) -> NDArray[np.int64]:
    """Indices of the attacked rows: those whose ids have the smallest digests.

    The choice depends on nothing else, so that the same rows are attacked before and after a change, and by every attack.
    """
    rank = np.array([derive(0, "attacked", unit) for unit in holdout.ids], dtype=np.int64)
    return np.sort(np.argsort(rank, kind="stable")[:most])


def surface(target: Target, rows: NDArray[np.int64]) -> Surface:
    """The surface of the chosen holdout rows.

    Raises:
        NotApplicable: the user declared that nothing may be changed.
        Unmeasured: nothing can be changed within the radius.
        InvalidData: declared bounds and data contradict each other.
    """
    least = 1 if target.domain.norm == "l0" else 0
    if target.domain.radius is not None and not (target.domain.radius > 0 and target.domain.radius >= least):
        raise Unmeasured(
            f"nothing can be changed within a radius of {target.domain.radius:g}", hint="Declare a larger domain.radius."
        )
    return _of_table(target, rows) if target.holdout.is_table else _of_array(target, rows)


def _of_table(target: Target, rows: NDArray[np.int64]) -> Surface:
    spec, holdout = target.domain, target.holdout
    settings: dict[str, Any] = {"integer": spec.integer, "bounds": spec.bounds, "costs": spec.costs}
    table = Table.describe(holdout.x, immutable=spec.immutable, **settings)
    changeable = [feature for feature in table.features if feature.mutable]
    if not changeable:
        raise NotApplicable("no column may be changed: all are declared immutable or hold only identifiers")
    norm: Norm = spec.norm or "linf"
    radius = spec.radius if spec.radius is not None else _corner(TABLE_RADIUS, len(changeable), norm)
    if norm != "l0":
        # A category or whole number whose smallest change costs more than the radius is out of reach, so it is not searched.
        steps = {f.name: f.cost if f.kind == "category" else f.cost / f.scale * (f.kind == "integer") for f in changeable}
        reachable = [f.name for f in changeable if steps[f.name] <= radius and (f.kind == "category" or f.low < f.high)]
        if not reachable:
            raise Unmeasured(
                f"no column can be changed at a cost of {radius:g} ({norm})", hint="Declare domain.radius, domain.costs or both."
            )
        table = Table.describe(holdout.x, immutable=[f.name for f in table.features if f.name not in reachable], **settings)
    domain = Tabular(table=table, norm=norm, radius=radius, relations=spec.relations)
    encoded = table.encode(holdout.x)
    usable = np.asarray(np.isfinite(encoded).all(axis=1))
    free = [feature.name for feature in table.features if feature.mutable]
    words = f"{norm} cost of at most {radius:g} over {len(free)} of {holdout.x.shape[1]} columns, in standard deviations"
    return _surface(holdout, encoded, usable, rows, domain, table.decode, words)


def _of_array(target: Target, rows: NDArray[np.int64]) -> Surface:
    spec, holdout = target.domain, target.holdout
    if spec.integer or spec.bounds or spec.costs or spec.relations or spec.immutable:
        raise InvalidData("domain constraints on columns need a table", hint="For arrays, declare norm, radius, low and high.")
    x = np.asarray(holdout.x)
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    usable = np.asarray(np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if not usable.any():
        raise Inconclusive("every holdout row has a value that is no finite number")
    low = float(x[usable].min()) if spec.low is None else spec.low
    high = float(x[usable].max()) if spec.high is None else spec.high
    if not low < high:
        raise Inconclusive(f"inputs lie between {low:g} and {high:g}, which leaves nothing to change")
    norm: Norm = spec.norm or "linf"
    radius = spec.radius if spec.radius is not None else _corner(ARRAY_RADIUS * (high - low), math.prod(x.shape[1:]), norm)
    words = f"{norm} radius {radius:g} inside [{low:g}, {high:g}]"
    return _surface(holdout, x, usable, rows, Ball(norm=norm, radius=radius, low=low, high=high), None, words)


def _surface(
    holdout: Dataset,
    encoded: NDArray[np.floating[Any]],
    usable: NDArray[np.bool_],
    rows: NDArray[np.int64],
    domain: Domain,
    decode: Callable[[Any], Any] | None,
    words: str,
) -> Surface:
    rows = rows[usable[rows]]
    rest = np.setdiff1d(np.flatnonzero(usable), rows)
    attacked = tied(holdout.take(rows))
    owned = rest[np.argsort([derive(0, "owned", holdout.ids[row]) for row in rest], kind="stable")][:MOST_OWNED]
    return Surface(
        x=encoded[rows],
        y=attacked.y,
        domain=domain,
        decode=decode,
        units=attacked.ids,
        clusters=attacked.clusters,
        owned=encoded[owned] if len(owned) else None,
        owned_labels=holdout.y[owned] if len(owned) else None,
        budget=words,
    )


def _corner(edge: float, features: int, norm: Norm) -> float:
    """The distance of a cube's corner from its centre; one feature under l0."""
    return {"linf": edge, "l2": edge * math.sqrt(features), "l1": edge * features, "l0": 1.0}[norm]


def changed_cells(before: pd.DataFrame, after: pd.DataFrame, show_values: bool) -> tuple[ChangedCell, ...]:
    """The cells of two one-row frames that differ; with their values only if the user opted in."""
    found = []
    for name in before.columns:
        old, new = before[name].iloc[0], after[name].iloc[0]
        if (bool(pd.isna(old)) and bool(pd.isna(new))) or old == new:
            continue
        found.append(
            ChangedCell(
                feature=str(name), before=_shown(old) if show_values else None, after=_shown(new) if show_values else None
            )
        )
    return tuple(found)


def picture(x: NDArray[np.floating[Any]], low: float, high: float) -> str | None:
    """One input as a base64 PNG, enlarged to be seen; None if it has not the shape of a picture."""
    if x.ndim == 3 and x.shape[0] in (1, 3):
        x = np.moveaxis(x, 0, -1)
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3 or x.shape[2] not in (1, 3) or min(x.shape[:2]) < 2:
        return None
    pixels = np.round(np.clip((x - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    times = -(-SHOWN_PIXELS // min(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    height, width, channels = pixels.shape
    lines = b"".join(b"\x00" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
