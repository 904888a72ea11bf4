"""Trees as arrays of child indices: what every compiled tree trusts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import InvalidModel


def check_tree(children: Sequence[NDArray[np.int64]], nodes: int, where: str, roots: int = 1) -> None:
    """Refuse a tree in which a child lies outside, or a node has two parents, or a root has one.

    Args:
        children: the child indices of each side; a negative index is no inner node.
        nodes: how many nodes there are.
        where: for errors.
        roots: how many nodes, from 0, are roots.

    Raises:
        InvalidModel: as above.
    """
    inner = np.concatenate([side[side >= 0] for side in children])
    if inner.size and (inner.max() >= nodes or inner.min() < roots or np.bincount(inner).max() > 1):
        raise InvalidModel("a tree that points outside itself or into itself", where=where, hint="The file is damaged or forged.")
