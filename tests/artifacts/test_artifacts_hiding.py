"""Places in which a forged file might hide from the check: the memo's index, and containers beside the usual ones."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from holdfast.artifacts.checking import check_file
from holdfast.artifacts.objects import check_objects
from holdfast.core.errors import InvalidModel


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("index", [40_000_000, 0xFFFFFFF0])
def test_a_few_bytes_cannot_claim_a_huge_memo(tmp_path: Path, index: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04]r" + pack("<I", index) + b".")
    with pytest.raises(InvalidModel, match="memo index"):
        check_file(path).require()


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("container", [list, tuple, deque])
def test_a_forged_tree_is_found_in_any_container(container: type) -> None:
    forest = RandomForestClassifier(2, random_state=0).fit(np.arange(40.0).reshape(20, 2), np.arange(20) % 2)
    check_objects(container(forest.estimators_), "honest")
    tree = forest.estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 900_000_000
    tree.__setstate__(state)
    with pytest.raises(InvalidModel):
        check_objects(container(forest.estimators_), "forged")
